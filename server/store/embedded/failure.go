package embedded

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap/zapcore"
)

// ErrNoSpace says that a member cannot go on because its disk is full. It cannot be mended within the process: the goroutine that failed keeps etcd's locks. Room, and
// a new process on the same directory, mend it.
var ErrNoSpace = errors.New("no space is left for etcd's files")

// failure is what happens when etcd finds that it cannot go on, which it says as a fatal log entry and then expects the process to be gone. While the member
// starts, that is a panic, which start turns into an error or which ends the process. Later, the goroutine stands still for good and the member counts as failed:
// the server around it goes on without etcd, and decides what to do.
type failure struct {
	started atomic.Bool
	reason  chan error // has the first reason
}

func newFailure() *failure { return &failure{reason: make(chan error, 1)} }

// OnWrite implements zapcore.CheckWriteHook.
func (f *failure) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	if !f.started.Load() {
		zapcore.WriteThenPanic.OnWrite(e, fields)
	}
	select {
	case f.reason <- reasonOf(e.Message, fields):
	default:
	}
	select {}
}

// reasonOf joins the message of an entry with its error.
func reasonOf(message string, fields []zapcore.Field) error {
	for _, field := range fields {
		err, ok := field.Interface.(error)
		switch {
		case !ok:
		case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), strings.Contains(err.Error(), syscall.ENOSPC.Error()):
			return fmt.Errorf("%w (%s: %w)", ErrNoSpace, message, err)
		default:
			return fmt.Errorf("%s: %w", message, err)
		}
	}
	return errors.New(message)
}
