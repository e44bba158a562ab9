// Package timeline keeps what happened to an incident within its bound.
//
// Three parts of a server write in an incident's timeline: the mind what it decides, the notifier what it delivers, the API who takes care of it. [Add] is how all of them do it, so that the
// bound that incident.proto documents is one, and that what an incident cannot do without is kept by whoever fills it.
package timeline

import (
	"slices"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Most is how many entries a timeline has at most, as incident.proto says.
const Most = 200

// Add adds an entry, which is the incident's from then on. When the timeline is full, the first entry after the first hundred goes and is counted: how it began and how it ends matter most. One
// that tells of a break-glass message goes only when nothing else is left there: by these it is known which outages the incident has taken in, and one that is not known so is told of again.
// The incident must not be used by anybody else meanwhile.
func Add(i *meshv1.Incident, e *meshv1.TimelineEntry) {
	for len(i.Timeline) >= Most {
		at := slices.IndexFunc(i.Timeline[Most/2:], func(x *meshv1.TimelineEntry) bool { return x.GetEvent() != meshv1.TimelineEntry_BREAK_GLASS })
		at = max(at, 0) + Most/2
		i.Timeline = slices.Delete(i.Timeline, at, at+1)
		i.TimelineDropped++
	}
	i.Timeline = append(i.Timeline, e)
}
