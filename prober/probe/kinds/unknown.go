package kinds

import (
	"cmp"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Fields of Check from firstProbing to lastProbing say how to probe. The others are about scheduling and telling, which is not the prober's business.
const (
	firstProbing = 20
	lastProbing  = 39
)

// unknown is the path of a message that has a field which this build does not know, "the check" for the check itself; empty when there is none. A check that asks for what the prober
// does not know must not be run without it: it would be OK where other probers see it fail.
func unknown(m protoreflect.Message, path string) (found string) {
	if foreign(m.GetUnknown(), path == "") {
		return cmp.Or(path, "the check")
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if path == "" && (f.Number() < firstProbing || f.Number() > lastProbing) {
			return true
		}
		at := f.TextName()
		if path != "" {
			at = path + "." + at
		}
		switch {
		case f.Message() == nil, f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				if found = unknown(v.List().Get(i).Message(), at); found != "" {
					break
				}
			}
		default:
			found = unknown(v.Message(), at)
		}
		return found == ""
	})
	return found
}

// foreign tells whether unknown fields matter: all of them, but for those of the check itself that are not about probing.
func foreign(fields protoreflect.RawFields, check bool) bool {
	for len(fields) > 0 {
		number, _, n := protowire.ConsumeField(fields)
		if n < 0 {
			return true
		}
		if !check || number >= firstProbing && number <= lastProbing {
			return true
		}
		fields = fields[n:]
	}
	return false
}
