package fields

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func shop() *meshv1.Check {
	return &meshv1.Check{
		Name: "checks/shop", Uri: "https://shop.example.com", Interval: durationpb.New(30 * time.Second), Probers: 3,
		Labels: map[string]string{"team": "payments", "tier.x": "1"}, Receivers: []string{"receivers/ops"},
		Http: &meshv1.HttpProbe{Expect: []string{"response.status == 200"}, Headers: map[string]string{"A": "b"}},
		Etag: "7", Revision: 7, CreateTime: timestamppb.New(time.Unix(1, 0)), Status: &meshv1.CheckStatus{Check: "checks/shop"},
	}
}

func TestTheServersFieldsAreThoseDocumentedSo(t *testing.T) {
	want := map[string]string{
		"Check":    "create_time update_time etag revision status",
		"Receiver": "create_time update_time etag owed last_error last_delivery_time delivery_unknown",
	}
	for _, m := range []proto.Message{&meshv1.Check{}, &meshv1.Receiver{}} {
		var owned []string
		d := m.ProtoReflect().Descriptor()
		for i := range d.Fields().Len() {
			if f := d.Fields().Get(i); serverOwned(f) {
				owned = append(owned, string(f.Name()))
			}
		}
		if got := strings.Join(owned, " "); got != want[string(d.Name())] {
			t.Errorf("%s: %s, want %s", d.Name(), got, want[string(d.Name())])
		}
	}
}

func TestAMaskNamesFields(t *testing.T) {
	for path, want := range map[string]string{
		"interval": "", "http.expect": "", "http.tls.server_name": "", "labels": "", "labels.team": "", "labels.a.b": "", "http.headers.X-Y": "", "etag": "", "*": "",
		"intervall":        `names "intervall", which is not a field; the fields are name, display_name, uri, interval, timeout, probers, quorum,`,
		"http.expct":       `names "http.expct", which is not a field; the fields of http are method, headers, body,`,
		"http.tls.x":       `names "http.tls.x", which is not a field; the fields of http.tls are server_name, ca_pem,`,
		"interval.seconds": `names "interval.seconds", but interval has no fields; name it as a whole`,
		"receivers.0":      `names "receivers.0", but receivers has no fields; name it as a whole`,
		"labels.":          `names "labels.", but labels has no fields; name it as a whole`,
		"":                 `names "", which is not a field; the fields are name,`,
		"http.":            `names "http.", which is not a field; the fields of http are method,`,
	} {
		faults := Check(&meshv1.Check{}, &fieldmaskpb.FieldMask{Paths: []string{path}})
		got := ""
		if len(faults) > 0 {
			got = faults[0].Problem
		}
		if (want == "") != (got == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%q:\n got %s\nwant %s", path, got, want)
		}
	}
}

func TestMergeTakesWhatTheMaskNames(t *testing.T) {
	wished := &meshv1.Check{
		Name: "checks/shop", Uri: "https://new.example.com", Quorum: 2, Labels: map[string]string{"team": "core"}, Etag: "3",
		Http: &meshv1.HttpProbe{Method: "HEAD", Headers: map[string]string{"X-Y": "z"}},
	}
	for _, c := range []struct {
		mask string
		want func(*meshv1.Check)
	}{
		{"uri", func(c *meshv1.Check) { c.Uri = wished.Uri }},
		{"interval", func(c *meshv1.Check) { c.Interval = nil }},
		{"quorum probers", func(c *meshv1.Check) { c.Quorum, c.Probers = 2, 0 }},
		{"labels.team", func(c *meshv1.Check) { c.Labels["team"] = "core" }},
		{"labels.tier.x", func(c *meshv1.Check) { delete(c.Labels, "tier.x") }},
		{"labels", func(c *meshv1.Check) { c.Labels = map[string]string{"team": "core"} }},
		{"http.expect http.method", func(c *meshv1.Check) { c.Http.Expect, c.Http.Method = nil, "HEAD" }},
		{"http.headers.X-Y", func(c *meshv1.Check) { c.Http.Headers["X-Y"] = "z" }},
		{"http", func(c *meshv1.Check) { c.Http = proto.Clone(wished.Http).(*meshv1.HttpProbe) }},
		{"tcp.send", func(c *meshv1.Check) {}},
		{"http.tls.server_name", func(c *meshv1.Check) {}},
		{"etag revision status create_time", func(c *meshv1.Check) {}},
		{"*", func(c *meshv1.Check) { everything(c, wished) }},
		{"", func(c *meshv1.Check) { everything(c, wished) }},
	} {
		want := shop()
		c.want(want)
		stored, given := shop(), proto.Clone(wished).(*meshv1.Check)
		got := Merge(stored, given, &fieldmaskpb.FieldMask{Paths: strings.Fields(c.mask)})
		if !proto.Equal(got, want) {
			t.Errorf("%q:\n got %v\nwant %v", c.mask, got, want)
		}
		if !proto.Equal(stored, shop()) || !proto.Equal(given, wished) {
			t.Errorf("%q: Merge changed its arguments", c.mask)
		}
	}
}

func everything(c, wished *meshv1.Check) {
	*c = meshv1.Check{
		Name: wished.Name, Uri: wished.Uri, Quorum: wished.Quorum, Labels: wished.Labels, Http: wished.Http,
		Etag: c.Etag, Revision: c.Revision, CreateTime: c.CreateTime, Status: c.Status,
	}
}

func TestDiffNamesFieldsAndValues(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*meshv1.Check)
		want   []string
	}{
		{"nothing", func(c *meshv1.Check) {}, nil},
		{"the server's fields", func(c *meshv1.Check) { c.Etag, c.Status, c.CreateTime, c.Revision = "9", nil, nil, 9 }, nil},
		{"a duration", func(c *meshv1.Check) { c.Interval = durationpb.New(90 * time.Second) }, []string{`interval "30s" "90s"`}},
		{"unset", func(c *meshv1.Check) { c.Interval, c.Probers = nil, 0 }, []string{`interval "30s" -`, `probers 3 -`}},
		{"a text", func(c *meshv1.Check) { c.DisplayName = `a "b"` }, []string{`display_name - "a \"b\""`}},
		{"a list", func(c *meshv1.Check) { c.Receivers = append(c.Receivers, "receivers/b") },
			[]string{`receivers ["receivers/ops"] ["receivers/ops","receivers/b"]`}},
		{"a map", func(c *meshv1.Check) { c.Labels = map[string]string{"team": "core", "new": ""} },
			[]string{`labels.new - ""`, `labels.team "payments" "core"`, `labels.tier.x "1" -`}},
		{"a field below", func(c *meshv1.Check) { c.Http.Method = "GET" }, []string{`http.method - "GET"`}},
		{"an optional default", func(c *meshv1.Check) { c.Http.FollowRedirects = proto.Bool(false) }, []string{`http.follow_redirects - false`}},
		{"64 bits", func(c *meshv1.Check) { c.Http.BodyLimit = 1 << 20 }, []string{`http.body_limit - "1048576"`}},
		{"an enum", func(c *meshv1.Check) { c.Http.Version = meshv1.HttpProbe_HTTP2 }, []string{`http.version - "HTTP2"`}},
		{"a group gone", func(c *meshv1.Check) { c.Http = nil }, []string{`http.headers.A "b" -`, `http.expect ["response.status == 200"] -`}},
		{"an empty group", func(c *meshv1.Check) { c.Tcp = &meshv1.TcpProbe{} }, []string{`tcp - {}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			wished := shop()
			c.change(wished)
			var got []string
			for _, f := range Diff(shop(), wished) {
				got = append(got, fmt.Sprintf("%s %s %s", f.Path, dash(f.Before), dash(f.After)))
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Whatever the paths, checking them does not panic, and a mask that passed can be merged; what it leaves out does not change.
func FuzzMerge(f *testing.F) {
	f.Add("interval,http.expect,labels.team", "checks/shop")
	f.Add("http.tls,tcp.expect,*", "x")
	f.Add(".,a..b,labels..", "")
	f.Fuzz(func(t *testing.T, paths, uri string) {
		mask := &fieldmaskpb.FieldMask{Paths: strings.Split(paths, ",")}
		if len(Check(&meshv1.Check{}, mask)) > 0 {
			return
		}
		merged := Merge(shop(), &meshv1.Check{Uri: uri, Http: &meshv1.HttpProbe{Body: uri}}, mask)
		if merged.Etag != "7" {
			t.Fatalf("mask %q changed the etag", paths)
		}
		named := map[string]bool{}
		for _, p := range mask.Paths {
			named[first(p)] = true
		}
		for _, change := range Diff(shop(), merged) {
			if !named[first(change.Path)] && !named["*"] {
				t.Fatalf("mask %q changed %s", paths, change.Path)
			}
		}
	})
}
