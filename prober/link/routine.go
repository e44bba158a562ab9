package link

import (
	"google.golang.org/protobuf/encoding/protowire"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// resultsField is the number of ResultBatch.results.
const resultsField = 2

// routine are unchanged results, oldest first, as the field of the message that they go in: encoded once and sent as they are. The zero value has none.
type routine struct {
	bytes []byte // of those that wait; what was handed out is let go of, also while others always wait
	ends  []int  // where each one ends, in bytes from the beginning of what was handed out
	taken int    // bytes that were handed out
}

// add copies a result.
func (r *routine) add(encoded []byte) {
	r.bytes = protowire.AppendTag(r.bytes, resultsField, protowire.BytesType)
	r.bytes = protowire.AppendBytes(r.bytes, encoded)
	r.ends = append(r.ends, r.taken+len(r.bytes))
}

func (r *routine) len() int { return len(r.ends) }

// next takes as many as fit into a frame, at least one of those that there are, and gives them as a message whose results are known to nobody but to whoever decodes it.
func (r *routine) next(frame int) *meshv1.ProberMessage {
	n := 1
	for n < len(r.ends) && n < batchResults && r.ends[n]-r.taken <= frame {
		n++
	}
	end := r.ends[n-1]
	size := end - r.taken
	b := &meshv1.ResultBatch{Kind: meshv1.ResultBatch_LIVE}
	b.ProtoReflect().SetUnknown(r.bytes[:size:size])
	r.bytes, r.ends, r.taken = r.bytes[size:], r.ends[n:], end
	if len(r.ends) == 0 {
		*r = routine{bytes: make([]byte, 0, min(end, frameBytes))} // what was handed out is read after this
	}
	return &meshv1.ProberMessage{Message: &meshv1.ProberMessage_Results{Results: b}}
}
