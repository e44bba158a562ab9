package configfile_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/configfile"
)

func TestAnyJSONObjectIsReadAndWritten(t *testing.T) {
	const text = `checks:
  - name: checks/a
    uri: https://a.example.com/
    http:
      graphql:
        query: '{ a }'
        variables:
          empty: {}
          id: "4711"
          list: [1, 2.5, -3e3, null, true, [x]]
          nested: {yes: no}
`
	first, faults := configfile.Parse("a.yaml", []byte(text))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	variables := first.Config.Checks[0].Http.Graphql.Variables
	if got := variables.AsMap(); got["id"] != "4711" || len(got["list"].([]any)) != 6 || got["nested"].(map[string]any)["yes"] != "no" {
		t.Errorf("got %v", got)
	}
	written, err := configfile.Marshal(first.Config)
	if err != nil {
		t.Fatal(err)
	}
	again, faults := configfile.Parse("b.yaml", written)
	if len(faults) > 0 || !proto.Equal(first.Config, again.Config) {
		t.Errorf("written as %s\n%v", written, faults)
	}
	for wrong, want := range map[string]string{"[1]": "wants a mapping", "{a: .nan}": "wants something that JSON has", "{a: 1, a: 2}": "is written twice", strings.Repeat("{a: ", 40) + "1" + strings.Repeat("}", 40): "in each other"} {
		_, faults := configfile.Parse("c.yaml", []byte("checks:\n- http:\n    graphql:\n      variables: "+wrong+"\n"))
		if len(faults) != 1 || !strings.Contains(faults[0].String(), want) {
			t.Errorf("%s: %v", wrong, faults)
		}
	}
}
