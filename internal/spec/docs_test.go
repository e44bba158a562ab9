package spec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"

	"github.com/probemesh/probemesh/internal/configfile"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// checkPages returns the pages of the manual of checks: by the name of a kind, and README for what all kinds have in common.
func checkPages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/checks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages := make(map[string]string, len(paths))
	for _, path := range paths {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pages[strings.TrimSuffix(filepath.Base(path), ".md")] = string(page)
	}
	return pages
}

// kindFields returns the fields of Check that hold the options of a kind, by the name of the kind.
func kindFields() map[string]protoreflect.MessageDescriptor {
	kinds := make(map[string]protoreflect.MessageDescriptor)
	fields := (&meshv1.Check{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if m := fields.Get(i).Message(); m != nil && strings.HasSuffix(string(m.Name()), "Probe") {
			kinds[string(fields.Get(i).Name())] = m
		}
	}
	return kinds
}

func TestTheExamplesOfTheManualAreValid(t *testing.T) {
	kinds := make(map[spec.Kind]bool)
	for name, page := range checkPages(t) {
		for _, block := range yamlBlock.FindAllStringSubmatch(page, -1) {
			loaded, err := configfile.Load([]string{"-"}, strings.NewReader(block[1]))
			if err != nil {
				t.Errorf("%s.md: %v in:\n%s", name, err, block[1])
				continue
			}
			for i, c := range loaded.Config.Checks {
				for _, v := range spec.ValidateCheck(c, fmt.Sprintf("checks[%d]", i)) {
					t.Errorf("%s.md: %s in:\n%s", name, v, block[1])
				}
				kind, _ := spec.KindOf(c.Uri)
				kinds[kind] = true
			}
		}
	}
	for name := range kindFields() {
		if !kinds[spec.Kind(name)] {
			t.Errorf("the manual has no example of kind %s", name)
		}
	}
}

// TestEveryKindHasAPageWithTheFieldsOfItsOptions holds the pages to the protos: the table of fields is generated, where its marker asks for it.
func TestEveryKindHasAPageWithTheFieldsOfItsOptions(t *testing.T) {
	pages := checkPages(t)
	for kind, options := range kindFields() {
		page, ok := pages[kind]
		if !ok {
			t.Errorf("kind %s has no page docs/checks/%s.md", kind, kind)
			continue
		}
		if mark := "<!-- fields: " + string(options.FullName()) + " -->"; !strings.Contains(page, mark) {
			t.Errorf("docs/checks/%s.md has no line %q", kind, mark)
		}
		if !strings.Contains(pages["README"], "]("+kind+".md)") {
			t.Errorf("docs/checks/README.md does not lead to %s.md", kind)
		}
	}
}

func TestTheManualNamesEveryClassAndEveryFieldOfTheResponse(t *testing.T) {
	pages := checkPages(t)
	for number, name := range meshv1.Result_ErrorClass_name {
		if number != 0 && !strings.Contains(pages["README"], "`"+name+"`") {
			t.Errorf("class %s is not in docs/checks/README.md", name)
		}
	}
	fields := (&meshv1.Response{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		page := pages["README"] + pages[string(f.Name())]
		if !strings.Contains(page, "`"+string(f.Name())) {
			t.Errorf("field %s of the response is not in the manual", f.Name())
		}
		if f.Message() == nil || f.IsMap() || f.Message().FullName().Parent() != "probemesh.v1" {
			continue
		}
		for j := range f.Message().Fields().Len() {
			if n := string(f.Message().Fields().Get(j).Name()); !strings.Contains(page, "."+n) && !strings.Contains(page, "`"+n+"`") {
				t.Errorf("field %s.%s of the response is neither in docs/checks/README.md nor in docs/checks/%s.md", f.Name(), n, f.Name())
			}
		}
	}
}

// TestTheManualNamesEveryField keeps the pages from falling behind: a field of a check, a receiver or a notification that no page names is one that a
// user has to find by chance.
func TestTheManualNamesEveryField(t *testing.T) {
	for file, messages := range map[string][]proto.Message{
		"../../docs/checks/README.md": {&meshv1.Check{}},
		"../../docs/receivers.md":     {&meshv1.Receiver{}, &meshv1.Webhook{}, &meshv1.Notification{}},
	} {
		page, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			fields := m.ProtoReflect().Descriptor().Fields()
			for i := range fields.Len() {
				f := fields.Get(i)
				if n := string(f.Name()); int(f.Number()) < 40 && !strings.Contains(string(page), n) {
					t.Errorf("%s does not name %s.%s", file, m.ProtoReflect().Descriptor().Name(), n)
				}
			}
		}
	}
}

func TestTheExamplesOfReceiversAreValid(t *testing.T) {
	page, err := os.ReadFile("../../docs/receivers.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(yaml|json)\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	kinds := map[string]int{}
	for _, block := range blocks {
		kinds[block[1]]++
		json, err := yaml.YAMLToJSONStrict([]byte(block[2]))
		if err != nil {
			t.Fatalf("%v in:\n%s", err, block[2])
		}
		if block[1] == "json" {
			if err := protojson.Unmarshal(json, &meshv1.Notification{}); err != nil {
				t.Errorf("%v in:\n%s", err, block[2])
			}
			continue
		}
		loaded, err := configfile.Load([]string{"-"}, strings.NewReader(block[2]))
		if err != nil {
			t.Fatalf("%v in:\n%s", err, block[2])
		}
		for _, r := range loaded.Config.Receivers {
			for _, v := range spec.ValidateReceiver(r, r.GetName()) {
				t.Errorf("%s in:\n%s", v, block[2])
			}
		}
	}
	if kinds["yaml"] == 0 || kinds["json"] == 0 {
		t.Fatalf("%v examples, want receivers and notifications", kinds)
	}
}
