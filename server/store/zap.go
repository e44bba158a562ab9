package store

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// ZapLogger lets etcd's client and server, which log through zap, write to log: warnings and above, with their fields. A fatal entry
// panics instead of ending the process behind everybody's back. A warning or error that comes again within a minute of the one before is left out and counted; the
// pause doubles up to an hour while it goes on, since etcd repeats some every four seconds for as long as a member is away. The next one that is written has the
// number of those left out as left_out.
func ZapLogger(log *slog.Logger) *zap.Logger {
	return zap.New(&slogCore{log: log.With("component", "etcd"), repeats: newRepeats()}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

// slogCore is a zapcore.Core on a slog.Logger.
type slogCore struct {
	log     *slog.Logger
	repeats *repeats
	fields  []zapcore.Field
}

// Enabled lets warnings and above pass: etcd's information is about each of its own steps.
func (c *slogCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With keeps fields for all later entries.
func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log, repeats: c.repeats, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// harmless are warnings of an embedded member that say nothing about our use of it: it listens on loopback unless told otherwise, no client of ours uses its
// token login, and its listener closes when it stops.
func harmless(message string) bool {
	switch message {
	case "Running http and grpc server on single port. This is not recommended for production.", "simple token is not cryptographically signed",
		"setting up serving from embedded etcd failed.":
		return true
	}
	return false
}

// unborn tells whether an entry only says that a member which joins has no data yet: it has written nothing then, so that its database has no version.
func unborn(fields map[string]any) bool {
	text, _ := fields["error"].(string)
	return strings.Contains(text, "missing term information")
}

// Check adds the core to entries it takes.
func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !harmless(e.Message) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write hands an entry to slog.
func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	if unborn(enc.Fields) {
		return nil
	}
	leftOut := 0
	if e.Level <= zapcore.ErrorLevel { // beyond that the process ends
		var pass bool
		if pass, leftOut = c.repeats.pass(time.Now(), e.Message+peerOf(enc.Fields)); !pass {
			return nil
		}
	}
	var args []any
	for _, k := range slices.Sorted(maps.Keys(enc.Fields)) {
		args = append(args, slog.Any(k, enc.Fields[k]))
	}
	attrs := []any{slog.Group("fields", args...)}
	if leftOut > 0 {
		attrs = append(attrs, slog.Int("left_out", leftOut))
	}
	level := slog.LevelWarn
	if e.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, e.Message, attrs...)
	return nil
}

// Sync has nothing to do.
func (c *slogCore) Sync() error { return nil }
