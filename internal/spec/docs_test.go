package spec_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/probemesh/probemesh/internal/configfile"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

func TestTheExamplesOfTheManualAreValid(t *testing.T) {
	page, err := os.ReadFile("../../docs/checks.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[spec.Kind]bool)
	for _, block := range yamlBlock.FindAllStringSubmatch(string(page), -1) {
		json, err := yaml.YAMLToJSONStrict([]byte(block[1]))
		if err != nil {
			t.Errorf("%v in:\n%s", err, block[1])
			continue
		}
		config := &meshv1.Config{}
		if err := protojson.Unmarshal(json, config); err != nil {
			t.Errorf("%v in:\n%s", err, block[1])
			continue
		}
		for i, c := range config.Checks {
			for _, v := range spec.ValidateCheck(c, fmt.Sprintf("checks[%d]", i)) {
				t.Errorf("%s in:\n%s", v, block[1])
			}
			kind, _ := spec.KindOf(c.Uri)
			kinds[kind] = true
		}
	}
	if len(kinds) != 6 {
		t.Errorf("the manual has examples of %d kinds, not of 6", len(kinds))
	}
}

func TestTheManualNamesEveryClassAndEveryFieldOfTheResponse(t *testing.T) {
	page, err := os.ReadFile("../../docs/checks.md")
	if err != nil {
		t.Fatal(err)
	}
	for number, name := range meshv1.Result_ErrorClass_name {
		if number != 0 && !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("class %s is not in the manual", name)
		}
	}
	fields := (&meshv1.Response{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !strings.Contains(string(page), "`"+string(f.Name())) {
			t.Errorf("field %s is not in the manual", f.Name())
		}
		if f.Message() == nil || f.IsMap() || f.Message().ParentFile() != f.ParentFile() {
			continue
		}
		for j := range f.Message().Fields().Len() {
			if n := string(f.Message().Fields().Get(j).Name()); !strings.Contains(string(page), "."+n) {
				t.Errorf("field %s.%s is not in the manual", f.Name(), n)
			}
		}
	}
}

// TestTheManualNamesEveryField keeps the pages from falling behind: a field of a check, a receiver or a notification that no page names is one that a
// user has to find by chance.
func TestTheManualNamesEveryField(t *testing.T) {
	for file, messages := range map[string][]proto.Message{
		"../../docs/checks.md":    {&meshv1.Check{}},
		"../../docs/receivers.md": {&meshv1.Receiver{}, &meshv1.Webhook{}, &meshv1.Notification{}},
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
