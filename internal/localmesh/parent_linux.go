package localmesh

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel kill the process when this one dies.
func dieWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// A Ctrl-C of the terminal is for this process, which then stops the members in order.
	cmd.SysProcAttr.Setpgid = true
}
