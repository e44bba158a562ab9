package spec

import (
	"fmt"
	"regexp"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of a check, as check.proto documents them.
const (
	MaxCheckBytes = 16 << 10
	MinInterval   = time.Second
	MaxInterval   = 24 * time.Hour
	MinTimeout    = 100 * time.Millisecond
	MaxTimeout    = 60 * time.Second
	MaxProbers    = 50
)

// Limits of the parts of a check and of a receiver.
const (
	maxDisplayName      = 200
	maxLabels           = 32
	maxLabelValue       = 200
	maxReceivers        = 16
	maxDatacenters      = 50
	maxDistinct         = 8
	maxAnnotations      = 16
	maxAnnotationValue  = 2 << 10
	maxExpectations     = 20
	maxExpectationRunes = 1000
)

var keyPattern = regexp.MustCompile(`^[a-z0-9_.-]{1,63}$`)

// faults collects violations under one path.
type faults struct {
	path string
	list []fault.Violation
}

// add notes one violation of the field, which may be empty for the resource itself.
func (f *faults) add(field, format string, args ...any) {
	full := field
	switch {
	case field == "":
		full = f.path
	case f.path != "":
		full = f.path + "." + field
	}
	f.list = append(f.list, fault.Violation{Field: full, Problem: fmt.Sprintf(format, args...)})
}

// ValidateCheck lists every fault of a check; the list is empty when it is valid. path is put before each field's path, for example
// "checks[3]"; it may be empty. Receivers are not looked up. Output-only fields are ignored, so it does not matter whether [Normalize] came first.
func ValidateCheck(c *meshv1.Check, path string) []fault.Violation {
	f := &faults{path: path}
	name(f, Checks, c.GetName())
	displayName(f, c.GetDisplayName())
	target, problems := parseURI(c.GetUri())
	for _, p := range problems {
		f.add("uri", "%s", p)
	}
	timing(f, c)
	voices(f, c)
	keyed(f, "labels", c.GetLabels(), maxLabels, maxLabelValue)
	keyed(f, "annotations", c.GetAnnotations(), maxAnnotations, maxAnnotationValue)
	references(f, c.GetReceivers())
	places(f, c)
	options(f, c, target)
	if size := proto.Size(stored(c)); size > MaxCheckBytes {
		f.add("", "is %d bytes encoded, which is more than %d; shorten its body, its annotations or its certificates", size, MaxCheckBytes)
	}
	return f.list
}

// stored is the check without what only the server fills in, which does not count towards its size.
func stored(c *meshv1.Check) *meshv1.Check {
	if c.GetStatus() == nil && c.GetCreateTime() == nil && c.GetUpdateTime() == nil {
		return c
	}
	clone := proto.CloneOf(c)
	clearOutput(clone)
	return clone
}

func name(f *faults, collection, name string) {
	if name == "" {
		f.add("name", "is missing; write %s/<id>, where <id> is 1 to 63 characters of a-z, 0-9 and -", collection)
		return
	}
	if _, err := ParseName(collection, name); err != nil {
		f.add("name", "%s", err)
	}
}

func displayName(f *faults, s string) {
	if n := utf8.RuneCountInString(s); n > maxDisplayName {
		f.add("display_name", "has %d characters, which is more than %d; shorten it", n, maxDisplayName)
	}
}

// timing checks interval and timeout, and them against each other.
func timing(f *faults, c *meshv1.Check) {
	interval, ok := duration(f, "interval", c.GetInterval(), DefaultInterval, MinInterval, MaxInterval)
	timeout, valid := duration(f, "timeout", c.GetTimeout(), min(DefaultTimeout, interval), MinTimeout, MaxTimeout)
	if ok && valid && timeout > interval {
		f.add("timeout", "%s is longer than the interval of %s; lower it, or raise the interval", text(timeout), text(interval))
	}
}

// duration is the duration or its default. ok is false when it is outside its bounds, which is noted.
func duration(f *faults, field string, d *durationpb.Duration, unset, least, most time.Duration) (value time.Duration, ok bool) {
	if d == nil {
		return unset, true
	}
	if err := d.CheckValid(); err != nil {
		f.add(field, "is not a duration; write for example 30s")
		return unset, false
	}
	value = d.AsDuration()
	switch {
	case value < least:
		f.add(field, "%s is shorter than %s; raise it", text(value), text(least))
	case value > most:
		f.add(field, "%s is longer than %s; lower it", text(value), text(most))
	default:
		return value, true
	}
	return value, false
}

// voices checks probers and quorum, and them against each other.
func voices(f *faults, c *meshv1.Check) {
	probers, quorum := c.GetProbers(), c.GetQuorum()
	if probers < 0 || probers > MaxProbers {
		f.add("probers", "%d is not 1 to %d", probers, MaxProbers)
		return
	}
	switch {
	case quorum < 0:
		f.add("quorum", "%d is not 1 or more", quorum)
	case probers > 0 && quorum > probers:
		f.add("quorum", "%d is more than the %d probers that run the check, so it could never be down; lower it, or raise probers", quorum, probers)
	case probers == 0 && quorum > DefaultProbers:
		f.add("quorum", "%d is more than the %d probers that run a check when probers is unset; set probers to %d or more", quorum, DefaultProbers, quorum)
	}
}

// places checks datacenters and distinct.
func places(f *faults, c *meshv1.Check) {
	count(f, "datacenters", len(c.GetDatacenters()), maxDatacenters)
	seen := make(map[string]bool)
	for i, dc := range c.GetDatacenters() {
		field := fmt.Sprintf("datacenters[%d]", i)
		if !idPattern.MatchString(dc) {
			f.add(field, "%q is not a name of a datacenter; write 1 to 63 characters of a-z, 0-9 and -", clip(dc))
		}
		if seen[dc] {
			f.add(field, "%q is listed twice; remove one", clip(dc))
		}
		seen[dc] = true
	}
	if n := len(seen); n > 0 && c.GetProbers() >= 0 && c.GetProbers() <= MaxProbers {
		probers := c.GetProbers()
		if probers == 0 {
			probers = int32(min(DefaultProbers, n))
		}
		quorum := c.GetQuorum()
		if quorum == 0 {
			quorum = majority(probers)
		}
		if int(quorum) > n && quorum <= probers {
			f.add("datacenters", "lists %d, but a quorum of %d counts each datacenter once, so the check could never be down; list more, or lower quorum", n, quorum)
		}
	}
	count(f, "distinct", len(c.GetDistinct()), maxDistinct)
	for i, key := range c.GetDistinct() {
		if !keyPattern.MatchString(key) {
			f.add(fmt.Sprintf("distinct[%d]", i), "%q is not a label key; write 1 to 63 characters of a-z, 0-9, _, . and -", clip(key))
		}
	}
	count(f, "spread", len(c.GetSpread()), maxDistinct)
	for i, key := range c.GetSpread() {
		if !keyPattern.MatchString(key) {
			f.add(fmt.Sprintf("spread[%d]", i), "%q is not a label key; write 1 to 63 characters of a-z, 0-9, _, . and -", clip(key))
		}
	}
}

// keyed checks a map of free pairs.
func keyed(f *faults, field string, m map[string]string, most, mostBytes int) {
	count(f, field, len(m), most)
	for _, k := range sortedKeys(m) {
		if !keyPattern.MatchString(k) {
			f.add(element(field, k), "the key is not 1 to 63 characters of a-z, 0-9, _, . and -")
		}
		if len(m[k]) > mostBytes {
			f.add(element(field, k), "has %d bytes, which is more than %d; shorten it", len(m[k]), mostBytes)
		}
	}
}

// references checks the names of receivers.
func references(f *faults, receivers []string) {
	count(f, "receivers", len(receivers), maxReceivers)
	seen := make(map[string]bool)
	for i, r := range receivers {
		full, err := ParseName(Receivers, r)
		field := fmt.Sprintf("receivers[%d]", i)
		if err != nil {
			f.add(field, "%s", err)
			continue
		}
		if seen[full] {
			f.add(field, "%q is listed twice; remove one", full)
		}
		seen[full] = true
	}
}

func count(f *faults, field string, n, most int) {
	if n > most {
		f.add(field, "has %d entries, which is more than %d; remove some", n, most)
	}
}

// element is the path of one entry of a map.
func element(field, key string) string { return fmt.Sprintf("%s[%q]", field, clip(key)) }

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// text is a duration as people write it: 1m and not 1m0s.
func text(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
