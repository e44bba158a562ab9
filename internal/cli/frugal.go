package cli

import "runtime/debug"

// proberGC is the garbage collector's target in a prober, in percent of what is alive: what thousands of compiled checks hold stays for days, so that doubling it, as is the
// default, would be most of the process's memory, while the garbage of a probe is small. At 5,000 checks every 10 s it costs about 3 % of a core more.
const proberGC = 30

// frugal sets that target unless the operator has said another one (GOGC). The function returned puts back the one of before.
func frugal(getenv func(string) string) (restore func()) {
	if getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(proberGC)
	return func() { debug.SetGCPercent(before) }
}
