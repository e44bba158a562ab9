// Package catalog is the list of drills that `probemesh drill` can run, each in the file of its name. What they are made of, and how to write one, is told by
// package drill.
package catalog

import "github.com/probemesh/probemesh/internal/drill"

// Drills are all of them, in the order in which they are listed and run.
func Drills() []drill.Scenario {
	return []drill.Scenario{
		leaderKill(),
		leaderGraceful(),
		leaderPause(),
		serverKill(),
		etcdMemberKill(),
		notifierCrash(),
		backlog(),
		rollingRestart(),
		hungDisk(),
		historyStall(),
		datacenterCut(),
		packetLoss(),
	}
}

// Named is the drill of that name.
func Named(name string) (drill.Scenario, bool) {
	for _, s := range Drills() {
		if s.Name == name {
			return s, true
		}
	}
	return drill.Scenario{}, false
}
