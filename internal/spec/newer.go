package spec

import (
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// OptionCapabilities are the options of checks that came after the capabilities of kinds: a prober of an older build would run only a part of a check that has one, or refuse it. A prober that
// knows an option announces it as a capability, by these names: message and field, `HttpProbe.send_body_to_other_hosts`. Every new option of a kind is added here, and none is ever removed while
// probers without it may be in service.
func OptionCapabilities() []string {
	return []string{"HttpProbe.send_body_to_other_hosts", "OAuth2ClientCredentials.without_proxy"}
}

// OptionNeeds are those of [OptionCapabilities] that a check has use for, sorted; nil for most checks.
func OptionNeeds(c *meshv1.Check) []string {
	var needs []string
	known := OptionCapabilities()
	collectOptions(c.ProtoReflect(), func(name string) {
		if slices.Contains(known, name) && !slices.Contains(needs, name) {
			needs = append(needs, name)
		}
	})
	slices.Sort(needs)
	return needs
}

// collectOptions calls found with every field that is set in a message and in those within it.
func collectOptions(m protoreflect.Message, found func(name string)) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		found(optionName(f))
		switch {
		case f.Message() == nil, f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				collectOptions(v.List().Get(i).Message(), found)
			}
		default:
			collectOptions(v.Message(), found)
		}
		return true
	})
}

// optionName is the name of a field with that of its message.
func optionName(f protoreflect.FieldDescriptor) string {
	return string(f.ContainingMessage().Name()) + "." + string(f.Name())
}
