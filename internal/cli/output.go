package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/configfile"
	"github.com/probemesh/probemesh/internal/nearest"
	"github.com/spf13/cobra"
)

// Formats of results.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// outputFlag defines -o with the formats that a command has; the first is the default.
func outputFlag(cmd *cobra.Command, into *string, formats ...string) {
	names := formats[0]
	for _, f := range formats[1:] {
		names += ", " + f
	}
	cmd.Flags().StringVarP(into, "output", "o", formats[0], "`FORMAT` of the output: "+names+"; json has the API's names and every field")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

// checkFormat refuses a format that the command does not have.
func checkFormat(got string, formats ...string) error {
	if contains(formats, got) {
		return nil
	}
	if near := nearest.To(got, formats); near != "" {
		return usagef("there is no output format %q; did you mean %q?", got, near)
	}
	last := len(formats) - 1
	return usagef("there is no output format %q; use %s or %s", got, strings.Join(formats[:last], ", "), formats[last])
}

// toJSON is the protojson of a message with the proto's names and every field. protojson varies its white space on purpose, so it is laid out anew.
func toJSON(m proto.Message, indent bool) ([]byte, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	var b bytes.Buffer
	if indent {
		err = json.Indent(&b, raw, "", "  ")
	} else {
		err = json.Compact(&b, raw)
	}
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return b.Bytes(), nil
}

// printMessage writes a message as JSON or YAML.
func (a *app) printMessage(m proto.Message, format string) error {
	var out []byte
	var err error
	if format == formatYAML {
		out, err = configfile.Marshal(m)
		out = bytes.TrimSuffix(out, []byte("\n"))
	} else {
		out, err = toJSON(m, true)
	}
	if err != nil {
		return err
	}
	a.print(string(out))
	return nil
}
