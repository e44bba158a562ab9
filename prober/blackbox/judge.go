package blackbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"slices"
	"strings"

	"github.com/probemesh/probemesh/prober/probe"
)

// judgeHead says what is wrong with status and headers, or "".
func (x *exchange) judgeHead(resp *nethttp.Response) string {
	switch {
	case len(x.o.ValidStatusCodes) > 0 && !slices.Contains(x.o.ValidStatusCodes, resp.StatusCode):
		return fmt.Sprintf("the status is %d, none of valid_status_codes", resp.StatusCode)
	case len(x.o.ValidStatusCodes) == 0 && (resp.StatusCode < 200 || resp.StatusCode > 299):
		return fmt.Sprintf("the status is %d, not 200 to 299", resp.StatusCode)
	case len(x.o.FailIfHeaderMatches)+len(x.o.FailIfHeaderNotMatches) == 0:
		return ""
	}
	why := x.judgeHeaders(resp.Header)
	x.out.flag("probe_failed_due_to_regex", why != "")
	return why
}

func (x *exchange) judgeHeaders(h nethttp.Header) string {
	for _, m := range x.o.FailIfHeaderMatches {
		values := h.Values(m.Header)
		if len(values) == 0 && !m.AllowMissing {
			return "the answer has no header " + m.Header
		}
		if slices.ContainsFunc(values, m.Regexp.MatchString) {
			return fmt.Sprintf("the header %s matches %s", m.Header, m.Regexp)
		}
	}
	for _, m := range x.o.FailIfHeaderNotMatches {
		values := h.Values(m.Header)
		switch {
		case len(values) == 0 && m.AllowMissing:
		case len(values) == 0:
			return "the answer has no header " + m.Header
		case !slices.ContainsFunc(values, m.Regexp.MatchString):
			return fmt.Sprintf("the header %s does not match %s", m.Header, m.Regexp)
		}
	}
	return ""
}

// judgeVersion says what is wrong with the version of HTTP, or "".
func (x *exchange) judgeVersion(resp *nethttp.Response) string {
	if len(x.o.ValidHTTPVersions) == 0 || slices.Contains(x.o.ValidHTTPVersions, resp.Proto) {
		return ""
	}
	return fmt.Sprintf("the answer is %s, none of valid_http_versions", resp.Proto)
}

// judgeBody reads the body and says what is wrong with it, or gives back the fault that is known already. The error is one of reading.
func (x *exchange) judgeBody(ctx context.Context, a *probe.Attempt, resp *nethttp.Response, stayed bool, fault string) (string, error) {
	body := &counted{Reader: resp.Body, limit: bodyRead}
	if x.o.BodySizeLimit > 0 {
		body.limit, body.option = int64(x.o.BodySizeLimit), true
	}
	if unpacked, err := decompressor(x.o.Compression, resp.Body); err != nil {
		fault = fmt.Sprintf("the body is not compressed by %s: %v", x.o.Compression, err)
	} else if unpacked != nil {
		body.Reader = unpacked
	}
	if fault == "" && x.reads() {
		why, err := x.judgeText(ctx, a, body)
		if err != nil || stayed {
			return why, err
		}
		fault = why
	}
	if stayed {
		return fault, nil
	}
	_, err := io.Copy(io.Discard, body)
	x.out.set("probe_http_uncompressed_body_length", float64(body.n))
	return fault, err
}

// reads tells whether the module looks at the body.
func (x *exchange) reads() bool {
	return len(x.o.FailIfBodyMatchesRegexp)+len(x.o.FailIfBodyNotMatchesRegexp) > 0 || x.o.FailIfBodyJSONMatchesCEL != nil || x.o.FailIfBodyJSONNotMatchesCEL != nil
}

// judgeText says what is wrong with the text of the body, or "".
func (x *exchange) judgeText(ctx context.Context, a *probe.Attempt, body *counted) (string, error) {
	text, release, err := x.exporter.hold(a, body)
	defer release()
	x.out.set("probe_http_uncompressed_body_length", float64(body.n))
	patterns := len(x.o.FailIfBodyMatchesRegexp)+len(x.o.FailIfBodyNotMatchesRegexp) > 0
	if err != nil {
		if patterns {
			x.out.set("probe_failed_due_to_regex", 1)
		}
		return "", err
	}
	if patterns {
		why, err := x.judgePatterns(ctx, text)
		x.out.flag("probe_failed_due_to_regex", why != "" || err != nil)
		if why != "" || err != nil {
			return why, err
		}
	}
	if x.o.FailIfBodyJSONMatchesCEL == nil && x.o.FailIfBodyJSONNotMatchesCEL == nil {
		return "", nil
	}
	why := x.judgeJSON(ctx, text)
	x.out.flag("probe_failed_due_to_cel", why != "")
	return why, nil
}

func (x *exchange) judgePatterns(ctx context.Context, text []byte) (string, error) {
	for _, r := range x.o.FailIfBodyMatchesRegexp {
		if found, err := matches(ctx, r.Regexp, text); found || err != nil {
			return "the body matches " + r.String(), err
		}
	}
	for _, r := range x.o.FailIfBodyNotMatchesRegexp {
		if found, err := matches(ctx, r.Regexp, text); !found || err != nil {
			return "the body does not match " + r.String(), err
		}
	}
	return "", nil
}

func (x *exchange) judgeJSON(ctx context.Context, text []byte) string {
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		return "the body is not a JSON object: " + err.Error()
	}
	if c := x.o.FailIfBodyJSONMatchesCEL; c != nil {
		if yes, err := c.eval(ctx, object); err != nil || yes {
			return strings.TrimSuffix(fmt.Sprintf("fail_if_body_json_matches_cel: %s is true: %v", c.text, err), ": <nil>")
		}
	}
	if c := x.o.FailIfBodyJSONNotMatchesCEL; c != nil {
		if yes, err := c.eval(ctx, object); err != nil || !yes {
			return strings.TrimSuffix(fmt.Sprintf("fail_if_body_json_not_matches_cel: %s is not true: %v", c.text, err), ": <nil>")
		}
	}
	return ""
}

// eval evaluates an expression over a JSON object.
func (c *CEL) eval(ctx context.Context, object map[string]any) (bool, error) {
	v, _, err := c.program.ContextEval(ctx, map[string]any{"body": object})
	if err != nil {
		return false, err
	}
	yes, ok := v.Value().(bool)
	if !ok {
		return false, errors.New("the expression is not of type bool")
	}
	return yes, nil
}
