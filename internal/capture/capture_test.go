package capture_test

import (
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/probemesh/probemesh/internal/capture"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func compile(t testing.TB, c ...*meshv1.Capture) *capture.Program {
	t.Helper()
	p, faults := capture.Compile(c, true)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p
}

func header(name string) (string, bool) {
	if strings.EqualFold(name, "Location") {
		return "https://a.example.com/orders/17", true
	}
	return "", false
}

func TestValuesAreTakenFromTheBodyTheJSONAndTheHeaders(t *testing.T) {
	values := make(capture.Values)
	err := compile(t,
		&meshv1.Capture{Name: "csrf", Regexp: `name="csrf" value="([^"]+)"`},
		&meshv1.Capture{Name: "id", JsonPath: "items.1.id"},
		&meshv1.Capture{Name: "whole", Regexp: `items`},
		&meshv1.Capture{Name: "order", Header: "location", Regexp: `/orders/(\d+)$`},
		&meshv1.Capture{Name: "location", Header: "Location"},
	).Take(capture.Source{Body: []byte(`{"items": [{"id": 1}, {"id": "x-2"}], "form": "name="csrf" value="t0k">"}`), Header: header}, values)
	want := capture.Values{"csrf": "t0k", "id": "x-2", "whole": "items", "order": "17", "location": "https://a.example.com/orders/17"}
	if err != nil || !maps.Equal(values, want) {
		t.Fatalf("%v, %v", values, err)
	}
}

func TestACaptureThatFindsNothingOrTooMuchSaysSo(t *testing.T) {
	long := []byte(strings.Repeat("x", capture.MaxValue+1))
	for want, c := range map[string]struct {
		capture *meshv1.Capture
		body    []byte
	}{
		"capture a: y+ does not match in what was received":       {&meshv1.Capture{Name: "a", Regexp: "y+"}, long},
		"capture a: it found 4097 bytes, which is more than 4096": {&meshv1.Capture{Name: "a", Regexp: "x+"}, long},
		"capture a: it found 4097 bytes":                          {&meshv1.Capture{Name: "a"}, long},
		"capture a: it found 4097":                                {&meshv1.Capture{Name: "a", JsonPath: "v"}, []byte(`{"v": "` + string(long) + `"}`)},
		"capture a: x.y is not in the JSON of what was received":  {&meshv1.Capture{Name: "a", JsonPath: "x.y"}, []byte(`{"x": 1}`)},
		"capture a: the answer has no header X-None":              {&meshv1.Capture{Name: "a", Header: "X-None"}, nil},
		"capture a: 0 does not match in header Location":          {&meshv1.Capture{Name: "a", Header: "Location", Regexp: "0"}, nil},
		"capture a: z does not match in what was received":        {&meshv1.Capture{Name: "a", Regexp: "z"}, append(make([]byte, capture.MaxRegexpInput), 'z')},
	} {
		values := make(capture.Values)
		err := compile(t, c.capture).Take(capture.Source{Body: c.body, Header: header}, values)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	full := make(capture.Values)
	for i := range capture.MaxCaptures {
		full["v"+string(rune('a'+i))] = ""
	}
	if err := compile(t, &meshv1.Capture{Name: "a"}).Take(capture.Source{}, full); err == nil || !strings.Contains(err.Error(), "there are 16 captures already") {
		t.Errorf("got %v", err)
	}
	if err := compile(t, &meshv1.Capture{Name: "va"}).Take(capture.Source{Body: []byte("new")}, full); err != nil || full["va"] != "new" {
		t.Errorf("a capture of the same name does not take its place: %v", err)
	}
}

func TestFaultyCapturesAreExplainedAllAtOnce(t *testing.T) {
	_, faults := capture.Compile([]*meshv1.Capture{
		{Name: "A-b"}, {Name: "a", Regexp: "("}, {Name: "a", Regexp: "a", JsonPath: "b"}, {Name: "a", Header: "x"},
		{Name: "a", JsonPath: "x|@pretty"}, {Name: "a", JsonPath: strings.Repeat("a", 501)},
	}, false)
	var got []string
	for _, f := range faults {
		got = append(got, string(rune('0'+f.Index))+" "+f.Field+" "+f.Problem)
	}
	text := strings.Join(got, "\n")
	for _, want := range []string{`0 name "A-b" is not a name`, "1 regexp cannot be compiled: missing closing )", "2 json_path is given besides regexp", "3 header is for protocols with headers",
		"4 json_path \"x|@pretty\" has modifiers", "5 json_path has 501 characters"} {
		if !strings.Contains(text, want) {
			t.Errorf("nothing says %q in\n%s", want, text)
		}
	}
}

func TestVariablesAreReplacedOnceAndWithinBounds(t *testing.T) {
	v := capture.Values{"a": "1", "b": "${a}", "long": strings.Repeat("x", capture.MaxValue)}
	for text, want := range map[string]string{
		"":                "",
		"plain $ {a}":     "plain $ {a}",
		"${a}-${b}${a}":   "1-${a}1",
		"$${a} and $$${a": "${a} and $${a",
	} {
		if got, err := v.Expand(text); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"${c}":                        "${c} is not captured by any step before",
		"x ${a":                       "a ${ is not closed",
		strings.Repeat("${long}", 17): "the text is longer than 64 KiB",
	} {
		if _, err := v.Expand(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: got %v, want %s", text, err, want)
		}
	}
	names, err := capture.Variables("${a} $${no} ${b_2}")
	if err != nil || strings.Join(names, ",") != "a,b_2" {
		t.Errorf("%v, %v", names, err)
	}
	if _, err := capture.Variables("${A}"); err == nil || !strings.Contains(err.Error(), "write $${ for a plain ${") {
		t.Errorf("got %v", err)
	}
}

// FuzzTake: whatever a target sends, captures stay within their bounds and never panic.
func FuzzTake(f *testing.F) {
	f.Add([]byte(`{"a": [1, {"b": "c"}]}`), "a.1.b")
	f.Add([]byte(`{"a": [1,`), "a.#(b>1)#.c")
	f.Fuzz(func(t *testing.T, body []byte, path string) {
		for _, c := range []*meshv1.Capture{{Name: "a", JsonPath: path}, {Name: "a", Regexp: path}, {Name: "a", Header: "x", Regexp: "(.*)"}} {
			p, faults := capture.Compile([]*meshv1.Capture{c}, true)
			if len(faults) > 0 {
				continue
			}
			values := make(capture.Values)
			err := p.Take(capture.Source{Body: body, Header: func(string) (string, bool) { return string(body), true }}, values)
			if v, ok := values["a"]; ok == (err != nil) || len(v) > capture.MaxValue || !utf8.ValidString(v) {
				t.Fatalf("%d bytes, %v", len(v), err)
			}
		}
	})
}

// FuzzExpand: any text with any values either expands within its bound or says why not.
func FuzzExpand(f *testing.F) {
	f.Add("${a}$${", "${a}")
	f.Fuzz(func(t *testing.T, text, value string) {
		got, err := (capture.Values{"a": value}).Expand(text)
		if err == nil && len(got) > capture.MaxExpanded && got != text {
			t.Fatal(len(got))
		}
		if names, err := capture.Variables(text); err == nil && len(names) > len(text)/4 {
			t.Fatal(names)
		}
	})
}
