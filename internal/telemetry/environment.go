package telemetry

import (
	"fmt"
	"os"
	"strings"
)

// signal is one kind of telemetry as the OTEL_ variables name it: TRACES or METRICS.
type signal string

const (
	traces  signal = "TRACES"
	metrics signal = "METRICS"
)

// label is the signal as metrics and logs show it.
func (s signal) label() string { return strings.ToLower(string(s)) }

// exported tells whether the environment asks for the signal to be sent by OTLP. The error says what it asks for that cannot be done; nothing is
// sent then.
func exported(s signal, getenv func(string) string) (bool, error) {
	if strings.EqualFold(strings.TrimSpace(getenv("OTEL_SDK_DISABLED")), "true") {
		return false, nil
	}
	variable := "OTEL_" + string(s) + "_EXPORTER"
	wanted := false
	switch list := strings.TrimSpace(getenv(variable)); list {
	case "":
		wanted = getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_"+string(s)+"_ENDPOINT") != ""
	default:
		for name := range strings.SplitSeq(list, ",") {
			switch name = strings.ToLower(strings.TrimSpace(name)); {
			case name == "otlp":
				wanted = true
			case name == "none" || name == "":
			case name == "prometheus" && s == metrics:
				// The page at /metrics is always there.
			default:
				return false, fmt.Errorf("%s: exporter %q is not supported; use otlp or none", variable, name)
			}
		}
	}
	if !wanted {
		return false, nil
	}
	for _, variable := range []string{"OTEL_EXPORTER_OTLP_" + string(s) + "_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if p := strings.TrimSpace(getenv(variable)); p == "grpc" {
			break
		} else if p != "" {
			return false, fmt.Errorf("%s: protocol %q is not supported; use grpc, on port 4317 of most collectors", variable, p)
		}
	}
	return true, nil
}

// processEnvironment reads the variables of this process.
func processEnvironment(name string) string { return os.Getenv(name) }
