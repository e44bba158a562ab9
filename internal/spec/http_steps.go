package spec

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/internal/capture"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of steps, as http_probe.proto documents them.
const (
	maxSteps       = 20
	maxStepName    = 63
	maxStepHeaders = 32
)

// httpSteps checks the requests of a check that has several.
func httpSteps(f *faults, h *meshv1.HttpProbe, see seen) {
	if len(h.Steps) == 0 {
		return
	}
	count(f, "http.steps", len(h.Steps), maxSteps)
	for _, field := range []struct {
		name string
		set  bool
	}{{"method", h.Method != ""}, {"body", h.Body != ""}, {"body_bytes", len(h.BodyBytes) > 0}, {"form", len(h.Form) > 0}, {"graphql", h.Graphql != nil}} {
		if field.set {
			f.add("http."+field.name, "is for a check of one request, and this one has steps; move it to the step that it belongs to")
		}
	}
	known := make(map[string]bool)   // captured by the steps before
	names := make(map[string]string) // of steps
	expected, captured := len(h.Expect), 0
	for i, s := range h.Steps {
		at := fmt.Sprintf("http.steps[%d]", i)
		name := s.GetName()
		if name == "" {
			name = strconv.Itoa(i + 1)
		}
		if other, ok := names[name]; ok {
			f.add(at+".name", "%q is the name of %s too; results could not tell them apart, rename one", clip(name), other)
		}
		names[name] = at
		expected, captured = expected+len(s.GetExpect()), captured+len(s.GetCaptures())
		httpStep(f, at, s, known, see)
		captures(f, at+".captures", s.GetCaptures(), true)
		for _, c := range s.GetCaptures() {
			known[c.GetName()] = true
		}
	}
	if expected > maxExpectations {
		f.add("http.steps", "have %d expectations together with those of the check, which is more than %d; remove some", expected, maxExpectations)
	}
	if captured > capture.MaxCaptures {
		f.add("http.steps", "have %d captures, which is more than %d; remove some", captured, capture.MaxCaptures)
	}
}

// httpStep checks one step, but for its captures. known is what the steps before have captured, see what its expectations can see.
func httpStep(f *faults, at string, s *meshv1.HttpStep, known map[string]bool, see seen) {
	bounded(f, at+".name", len(s.GetName()), maxStepName)
	method(f, at+".method", s.GetMethod())
	stepURL(f, at+".url", s.GetUrl())
	count(f, at+".headers", len(s.GetHeaders()), maxStepHeaders)
	headerLines(f, at+".headers", s.GetHeaders(), func(at, name string) {
		reservedHeader(f, at, name, &meshv1.HttpProbe{})
		if strings.EqualFold(name, "host") {
			f.add(at, "is that of the url, or of the check's headers; remove it")
		}
	})
	requestBody(f, at, s)
	variables(f, at+".url", s.GetUrl(), known)
	variables(f, at+".body", s.GetBody(), known)
	for i, h := range s.GetHeaders() {
		variables(f, fmt.Sprintf("%s.headers[%d].value", at, i), h.GetValue(), known)
	}
	for i, field := range s.GetForm() {
		variables(f, fmt.Sprintf("%s.form[%d].value", at, i), field.GetValue(), known)
	}
	for _, v := range s.GetGraphql().GetVariables().GetFields() {
		jsonVariables(f, at+".graphql.variables", v, known)
	}
	expectations(f, at+".expect", s.GetExpect(), see)
}

// stepURL checks the target of a step, as far as it can be known before anything is captured.
func stepURL(f *faults, field, text string) {
	bounded(f, field, len(text), maxURI)
	if strings.Contains(text, "${") {
		return
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		f.add(field, "cannot be parsed (%s); write for example /login, or a whole URI", urlProblem(err))
	case u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https":
		f.add(field, "%q is neither http nor https", clip(text))
	case u.Scheme != "" && u.Hostname() == "":
		f.add(field, "%q has no host; write for example /login, or a whole URI", clip(text))
	case u.User != nil:
		f.add(field, "has user information, which is refused; use basic_auth, or a header of the step")
	case u.Fragment != "":
		f.add(field, "has a fragment, which is never sent; remove it")
	}
}

// captures checks what one step captures. headers tells whether the protocol has headers.
func captures(f *faults, field string, list []*meshv1.Capture, headers bool) {
	_, problems := capture.Compile(list, headers)
	for _, p := range problems {
		at := fmt.Sprintf("%s[%d]", field, p.Index)
		if p.Field != "" {
			at += "." + p.Field
		}
		f.add(at, "%s", p.Problem)
	}
}

// variables checks that what a text uses has been captured before.
func variables(f *faults, field, text string, known map[string]bool) {
	names, err := capture.Variables(text)
	if err != nil {
		f.add(field, "%s", err)
	}
	for _, n := range names {
		if !known[n] {
			f.add(field, "${%s} is not captured by any step before; capture it, or write $${ for a plain ${", clip(n))
		}
	}
}

// jsonVariables is variables for every string of a JSON value.
func jsonVariables(f *faults, field string, v *structpb.Value, known map[string]bool) {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		variables(f, field, kind.StringValue, known)
	case *structpb.Value_ListValue:
		for _, one := range kind.ListValue.GetValues() {
			jsonVariables(f, field, one, known)
		}
	case *structpb.Value_StructValue:
		for _, one := range kind.StructValue.GetFields() {
			jsonVariables(f, field, one, known)
		}
	}
}
