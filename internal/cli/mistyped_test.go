package cli

import (
	"bytes"
	"strings"
	"testing"
)

func TestMistypedWordsAreToldWhatTheyAreNearTo(t *testing.T) {
	for line, want := range map[string]string{
		"explian check x":                `there is no command "explian"; did you mean "explain"?`,
		"frobnicate":                     "there is no command \"frobnicate\"; `probemesh help` lists them",
		"get chekcs":                     `did you mean "checks"?`,
		"get events":                     "probemesh explain incident NAME",
		"get checks -o jsn":              `did you mean "json"?`,
		"get checks --filtre x":          "did you mean --filter?",
		"explain chek shop":              `there is no kind "chek" here; did you mean "check"? Write: `,
		"explain incidnet x":             `did you mean "incident"?`,
		"drain probr x":                  `did you mean "prober"?`,
		"member ad x http://127.0.0.1:1": `there is no "ad"; did you mean "add"? Write: `,
		"help exti-codes":                `did you mean "exit-codes"?`,
		"completion zhs":                 `did you mean "zsh"?`,
		"version --log-level inf":        `did you mean "info"?`,
		"probe htps://x":                 `did you mean "https"?`,
		"apply checks.yaml":              "write: probemesh apply -f checks.yaml",
		"drill lead-kill":                `did you mean "leader-kill"?`,
	} {
		var out, errs bytes.Buffer
		code := Run(t.Context(), Environment{Args: strings.Fields(line), In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }})
		if code != ExitUsage || !strings.Contains(errs.String(), want) {
			t.Errorf("%s: code %d, %q; want %q", line, code, errs.String(), want)
		}
	}
}
