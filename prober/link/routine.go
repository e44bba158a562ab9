package link

import (
	"google.golang.org/protobuf/encoding/protowire"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// resultsField is the number of ResultBatch.results.
const resultsField = 2

// routine are unchanged results, oldest first, as the field of the message that they go in: encoded once and sent as they are. The zero value has none.
type routine struct {
	bytes []byte
	ends  []int // where in bytes each one ends
	taken int   // bytes that were handed out
}

// add copies a result.
func (r *routine) add(encoded []byte) {
	r.bytes = protowire.AppendTag(r.bytes, resultsField, protowire.BytesType)
	r.bytes = protowire.AppendBytes(r.bytes, encoded)
	r.ends = append(r.ends, len(r.bytes))
}

func (r *routine) len() int { return len(r.ends) }

// next takes as many as fit into a frame, at least one of those that there are, and gives them as a message whose results are known to nobody but to whoever decodes it.
func (r *routine) next(frame int) *meshv1.ProberMessage {
	n := 1
	for n < len(r.ends) && n < batchResults && r.ends[n]-r.taken <= frame {
		n++
	}
	end := r.ends[n-1]
	b := &meshv1.ResultBatch{Kind: meshv1.ResultBatch_LIVE}
	b.ProtoReflect().SetUnknown(r.bytes[r.taken:end:end])
	r.ends, r.taken = r.ends[n:], end
	if len(r.ends) == 0 {
		*r = routine{bytes: make([]byte, 0, min(len(r.bytes), frameBytes))} // what was handed out is read after this
	}
	return &meshv1.ProberMessage{Message: &meshv1.ProberMessage_Results{Results: b}}
}
