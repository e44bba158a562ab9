package blackbox

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// check is a check of a URI that has until the deadline.
func (j *job) check(uri string, until time.Time) *meshv1.Check {
	return &meshv1.Check{Name: "checks/blackbox", Uri: uri, Interval: durationpb.New(timeoutMost), Timeout: durationpb.New(max(time.Until(until), time.Millisecond))}
}
