package telemetry

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// NewLogger makes a logger that writes one line a record to w, which must take concurrent writes of whole lines as files do. The format is `text` or
// `json` (empty: text); the level is the lowest that is written: `debug`, `info`, `warn` or `error` (empty: info). Case does not matter. The error names
// the valid values. When w hangs, such as a file on a disk that does, those who log are not kept: lines wait in memory, up to ten thousand.
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
	var handler func(io.Writer) slog.Handler
	switch strings.ToLower(format) {
	case "", "text":
		handler = func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, o) }
	case "json":
		handler = func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, o) }
	default:
		return nil, fmt.Errorf("log format %q is unknown; use text or json", format)
	}
	missing := func(dropped int) []byte {
		var b bytes.Buffer
		slog.New(handler(&b)).Error("the log hung, and lines are missing before this one", "dropped", dropped)
		return b.Bytes()
	}
	return slog.New(handler(&patient{w: w, missing: missing})), nil
}
