package configfile

import (
	"github.com/probemesh/probemesh/internal/nearest"

	"fmt"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxMergeDepth bounds merge keys that merge mappings with merge keys.
const maxMergeDepth = 16

// walker copies a YAML tree into a message, guided by the message's descriptor, and collects every fault on the way.
type walker struct {
	doc     *Document
	faults  []Fault
	values  int
	tooMany bool
}

// entry is one key of a mapping with its value.
type entry struct {
	key, value *yaml.Node
	merged     bool
}

func (w *walker) fault(n *yaml.Node, path, format string, args ...any) {
	w.doc.muted[path] = true
	w.faults = append(w.faults, Fault{Position: w.at(n), Path: path, Problem: fmt.Sprintf(format, args...)})
}

func (w *walker) at(n *yaml.Node) Position {
	return Position{File: w.doc.name, Line: n.Line, Column: n.Column}
}

// spend counts a value, and tells whether there may be more.
func (w *walker) spend(n *yaml.Node) bool {
	w.values++
	if w.values > maxValues && !w.tooMany {
		w.tooMany = true
		w.fault(n, "", "with its aliases the file has more than %d values; write fewer aliases of aliases", maxValues)
	}
	return !w.tooMany
}

// message fills m from a mapping. key is the node that named the message, nil for the whole file.
func (w *walker) message(n *yaml.Node, m protoreflect.Message, path string, key *yaml.Node) {
	n = follow(n)
	if m.Descriptor().FullName() == structName {
		w.object(n, m, path)
		return
	}
	if n.Kind != yaml.MappingNode {
		what := string(m.Descriptor().Name())
		if path == "" {
			what = "a mapping with `checks:` and `receivers:`"
		} else {
			what = "fields of " + what
		}
		w.fault(n, path, "wants %s, not %s", what, describe(n))
		return
	}
	fields := m.Descriptor().Fields()
	seen := map[string]*yaml.Node{}
	for _, e := range w.entries(n, path, seen, 0) {
		if !w.spend(e.key) {
			return
		}
		name := e.key.Value
		fd := fields.ByName(protoreflect.Name(name))
		fieldPath := join(path, name)
		if fd == nil || e.key.Kind != yaml.ScalarNode {
			w.unknown(e.key, m.Descriptor(), path)
			continue
		}
		w.doc.positions[fieldPath] = w.at(e.key)
		if isNull(e.value) {
			continue // as in protojson: null leaves a field unset
		}
		w.field(e, m, fd, fieldPath)
	}
}

// unknown reports a key that the message does not have, with the nearest that it has.
func (w *walker) unknown(key *yaml.Node, d protoreflect.MessageDescriptor, path string) {
	if key.Kind != yaml.ScalarNode {
		w.fault(key, path, "a field's name must be a word, not %s", describe(key))
		return
	}
	names := make([]string, d.Fields().Len())
	for i := range names {
		names[i] = string(d.Fields().Get(i).Name())
	}
	fieldPath := join(path, key.Value)
	if hint := foreign(key.Value); path == "" && d.Name() == "Config" && hint != "" {
		w.fault(key, fieldPath, "unknown field %q; %s", key.Value, hint)
		return
	}
	if near := nearest.To(key.Value, names); near != "" {
		w.fault(key, fieldPath, "unknown field %q; did you mean %q?", key.Value, near)
		w.doc.muted[join(path, near)] = true
		return
	}
	sort.Strings(names)
	w.fault(key, fieldPath, "unknown field %q; %s has %s", key.Value, d.Name(), strings.Join(names, ", "))
}

// foreign says what a file is, by the field at its top, that somebody has brought along from another system; "" when it is not known.
func foreign(field string) string {
	switch field {
	case "modules":
		return "this looks like a configuration of blackbox_exporter, which a prober takes by `probemesh prober --blackbox-config FILE`; here write checks"
	case "scrape_configs":
		return "this looks like a configuration of Prometheus; here write checks, each with a name and a uri"
	case "endpoints":
		return "this looks like a configuration of Gatus; here write checks, each with a name and a uri, and expect in the place of conditions"
	case "probe":
		return "this looks like a configuration of Cloudprober; here write checks, each with a name and a uri"
	}
	return ""
}

// entries lists a mapping's keys, those that it merges last and only where it does not have them itself. Keys written twice are reported.
func (w *walker) entries(n *yaml.Node, path string, seen map[string]*yaml.Node, depth int) []entry {
	var out []entry
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" || (key.Value == "<<" && key.Kind == yaml.ScalarNode) {
			merges = append(merges, value)
			continue
		}
		key = follow(key)
		if first, ok := seen[key.Value]; ok && key.Kind == yaml.ScalarNode {
			if depth == 0 {
				w.fault(key, join(path, key.Value), "is written twice, first in line %d; keep one", first.Line)
			}
			continue
		}
		seen[key.Value] = key
		out = append(out, entry{key: key, value: value, merged: depth > 0})
	}
	for _, value := range merges {
		out = append(out, w.merge(value, path, seen, depth)...)
	}
	return out
}

// merge gives the entries that a merge key brings in: those of a mapping, or of a list of mappings.
func (w *walker) merge(value *yaml.Node, path string, seen map[string]*yaml.Node, depth int) []entry {
	value = follow(value)
	sources := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		sources = value.Content
	}
	var out []entry
	for _, s := range sources {
		s = follow(s)
		switch {
		case !w.spend(s):
			return out
		case depth >= maxMergeDepth:
			w.fault(s, path, "merges more than %d levels deep", maxMergeDepth)
			return out
		case s.Kind != yaml.MappingNode:
			w.fault(s, path, "`<<` wants a mapping to merge, not %s", describe(s))
		default:
			out = append(out, w.entries(s, path, seen, depth+1)...)
		}
	}
	return out
}

// field sets one field of m.
func (w *walker) field(e entry, m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) {
	n := follow(e.value)
	switch {
	case fd.IsMap():
		w.mapField(n, m, fd, path)
	case fd.IsList():
		w.listField(n, m, fd, path)
	case fd.Message() != nil && !isScalarMessage(fd.Message()):
		w.message(n, m.Mutable(fd).Message(), path, e.key)
	default:
		if v, ok := w.value(n, fd, path, m.NewField(fd)); ok {
			m.Set(fd, v)
		}
	}
}

func (w *walker) mapField(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) {
	if n.Kind != yaml.MappingNode {
		w.fault(n, path, "wants key: value pairs, not %s", describe(n))
		return
	}
	out := m.Mutable(fd).Map()
	for _, e := range w.entries(n, path, map[string]*yaml.Node{}, 0) {
		if !w.spend(e.key) {
			return
		}
		if e.key.Kind != yaml.ScalarNode {
			w.fault(e.key, path, "a key must be a word, not %s", describe(e.key))
			continue
		}
		keyPath := path + "[" + strconv.Quote(e.key.Value) + "]"
		w.doc.positions[keyPath] = w.at(e.key)
		if v, ok := w.value(follow(e.value), fd.MapValue(), keyPath, out.NewValue()); ok {
			out.Set(protoreflect.ValueOfString(e.key.Value).MapKey(), v)
		}
	}
}

func (w *walker) listField(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) {
	if n.Kind != yaml.SequenceNode {
		if n.Kind == yaml.ScalarNode {
			w.fault(n, path, "wants a list, not %s; write [%s]", describe(n), n.Value)
		} else {
			w.fault(n, path, "wants a list, not %s; begin each item with `- `", describe(n))
		}
		return
	}
	out := m.Mutable(fd).List()
	for i, item := range n.Content {
		if !w.spend(item) {
			return
		}
		at := item
		item = follow(item)
		itemPath := path + "[" + strconv.Itoa(i) + "]"
		w.doc.positions[itemPath] = w.at(at)
		// An item that is not understood keeps its place in the list, so that the paths of the later ones stay right.
		v := out.NewElement()
		if fd.Message() != nil && !isScalarMessage(fd.Message()) {
			w.message(item, v.Message(), itemPath, at)
		} else if isNull(item) {
			w.fault(item, itemPath, "the item is empty; write %s, or remove it", wants(fd))
		} else if got, ok := w.value(item, fd, itemPath, v); ok {
			v = got
		}
		out.Append(v)
	}
}

// follow gives the node that an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for i := 0; n.Kind == yaml.AliasNode && n.Alias != nil && i < maxMergeDepth; i++ {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	n = follow(n)
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
