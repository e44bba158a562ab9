package scheduler

import (
	"fmt"
	"strings"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/grouping"
)

func sharedCause(c grouping.Cause, members []*check) *meshv1.SharedCause {
	x := &meshv1.SharedCause{Side: sideOf(c), Dimension: c.Value.Dimension, Value: c.Value.Value, Members: int32(len(members)), Sharing: int32(c.Extent.All), Answering: int32(c.Extent.Answering)}
	for _, a := range c.Also {
		x.Also = append(x.Also, a.String())
	}
	return x
}

// groupSentence announces a group:
//
//	198 checks with host=db1.example.com are DOWN together (api, db and 196 more); 200 have it, and 1 is seen to answer. Others of them that fail are added without a further message.
//	40 checks that are aliases of edge.cdn.example are DOWN together (...); 41 are aliases of it, and none is seen to answer. ...
func groupSentence(i *meshv1.Incident, names []string) string {
	list, x := nameSome(names), i.GetShared()
	if x.GetSide() == meshv1.SharedCause_NOTHING {
		return fmt.Sprintf("%d more checks turned %s within seconds (%s). Nothing that is known of them explains it; they are told of together, since so many turned at once.", len(names), i.GetVerdict(), list)
	}
	answers := "none is seen to answer"
	if n := int(x.GetAnswering()); n > 0 {
		answers = fmt.Sprintf("%d %s seen to answer", n, plural(n, "is", "are"))
	}
	also := ""
	if len(x.GetAlso()) > 0 {
		also = " (also " + strings.Join(x.GetAlso(), ", ") + ")"
	}
	all := "have it"
	switch x.GetDimension() {
	case grouping.CNAME:
		all = plural(int(x.GetSharing()), "is one of it", "are aliases of it")
	case grouping.Issuer:
		all = plural(int(x.GetSharing()), "has one", "have one")
	}
	return fmt.Sprintf("%d checks %s%s are %s together (%s); %d %s, and %s. Others of them that fail are added without a further message.",
		len(names), sharing(grouping.Value{Dimension: x.GetDimension(), Value: x.GetValue()}), also, i.GetVerdict(), list, x.GetSharing(), all, answers)
}

// sharing says of checks what they share.
func sharing(v grouping.Value) string {
	switch v.Dimension {
	case grouping.CNAME:
		return "that are aliases of " + v.Value
	case grouping.Issuer:
		return "with certificates issued by " + v.Value
	}
	return "with " + v.String()
}

// nameSome lists checks for a sentence, at most five of them by name.
func nameSome(checks []string) string {
	var ids []string
	for _, c := range checks[:min(len(checks), 5)] {
		ids = append(ids, spec.ID(c))
	}
	if more := len(checks) - len(ids); more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(ids, ", "), more)
	}
	return strings.Join(ids, ", ")
}
