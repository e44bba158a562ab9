package cli_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/probemesh/probemesh/internal/cli"
)

func TestStepdownNamesTheLeaderThatDoesNotAnswer(t *testing.T) {
	mesh := startFake(t)
	mesh.change(func() { mesh.leader = "127.0.0.1:1" })
	address := mesh.addr
	var out, errs bytes.Buffer
	code := cli.Run(t.Context(), cli.Environment{Args: []string{"stepdown", "--server", address}, In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }})
	if code != cli.ExitServer || !strings.Contains(errs.String(), "cannot reach a server at 127.0.0.1:1:") {
		t.Errorf("code %d: %s", code, errs.String())
	}
}
