package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// NewLogger makes a logger that writes one line a record to w, which must take concurrent writes of whole lines as files do. The format is `text` or
// `json` (empty: text); the level is the lowest that is written: `debug`, `info`, `warn` or `error` (empty: info). Case does not matter. The error names
// the valid values.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var threshold slog.Level
	switch strings.ToLower(level) {
	case "debug":
		threshold = slog.LevelDebug
	case "", "info":
		threshold = slog.LevelInfo
	case "warn", "warning":
		threshold = slog.LevelWarn
	case "error":
		threshold = slog.LevelError
	default:
		return nil, fmt.Errorf("log level %q is unknown; use debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: threshold}
	switch strings.ToLower(format) {
	case "", "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	default:
		return nil, fmt.Errorf("log format %q is unknown; use text or json", format)
	}
}
