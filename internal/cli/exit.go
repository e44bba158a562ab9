package cli

import (
	"errors"
	"fmt"
)

// The exit codes of every command. `probemesh help exit-codes` documents them.
const (
	// ExitOK means that it was done, or that the answer is yes.
	ExitOK = 0
	// ExitNo means that the answer is no: a difference was found, a probe failed, a test was not delivered.
	ExitNo = 1
	// ExitUsage means that the command line or a file is not right; nothing was asked of any server.
	ExitUsage = 2
	// ExitServer means that the server refused, could not be reached, or did not answer in time.
	ExitServer = 3
)

const exitCodesHelp = `Exit codes of every command:

  0  it was done, or the answer is yes
  1  the answer is no: diff found a difference, a probe failed, a test notification was not delivered,
     get mesh found something to be mended
  2  the command line or a configuration file is not right; nothing was changed
  3  the server refused, could not be reached, or did not answer within --timeout

A command that Ctrl-C cuts short ends with 130, as shells have it. One that goes on until Ctrl-C, such as get --watch, ends with 0.`

// exitInterrupted is what shells report for a process that SIGINT ended.
const exitInterrupted = 130

// failure is an error with the exit code it means. With an empty message nothing more is printed: the command has said it all.
type failure struct {
	code    int
	message string
	cause   error
}

func (f *failure) Error() string { return f.message }
func (f *failure) Unwrap() error { return f.cause }

// usagef is a fault of the command line.
func usagef(format string, args ...any) error {
	return &failure{code: ExitUsage, message: fmt.Sprintf(format, args...)}
}

// answerNo ends a command whose output already says no.
func answerNo() error { return &failure{code: ExitNo} }

// exitCode is the code that an error of a command means. Errors that are not marked came from cobra, about the command line.
func exitCode(err error) int {
	var f *failure
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &f):
		return f.code
	}
	return ExitUsage
}
