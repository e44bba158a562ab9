package dialogue

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxQuote is how many bytes of what was received a sentence shows.
const maxQuote = 120

// quote shows bytes in a sentence.
func quote(b []byte) string {
	if len(b) > maxQuote {
		return strconv.Quote(string(b[:maxQuote])) + "..."
	}
	return strconv.Quote(string(b))
}

// find looks for the pattern of the step and gives the places of its groups in text; nil when it does not match.
func (t *talk) find(text []byte) []int {
	groups := search(t.step.Expect, t.step.Match, text)
	if groups != nil {
		t.searched = text
	}
	return groups
}

// rejects tells whether text is what must not come.
func (t *talk) rejects(text []byte) bool {
	return t.step.Reject != nil && search(t.step.Reject, t.step.Match, text) != nil
}

// search is the leftmost match of re.
func search(re *regexp.Regexp, m Match, text []byte) []int {
	if m == Bytes {
		return re.FindReaderSubmatchIndex(&byteRunes{text: text})
	}
	return re.FindSubmatchIndex(text)
}

// byteRunes reads each byte as one character.
type byteRunes struct {
	text []byte
	at   int
}

// ReadRune implements io.RuneReader.
func (b *byteRunes) ReadRune() (rune, int, error) {
	if b.at == len(b.text) {
		return 0, 0, io.EOF
	}
	b.at++
	return rune(b.text[b.at-1]), 1, nil
}

// found are the texts of the groups of a match.
func (t *talk) found(groups []int) []string {
	out := make([]string, len(groups)/2)
	for i := range out {
		if from, to := groups[2*i], groups[2*i+1]; from >= 0 {
			out[i] = string(t.searched[from:to])
		}
	}
	return out
}

// unit is what captures are applied to: the line or datagram that matched, or the bytes up to the end of the match.
func (t *talk) unit(groups []int) []byte {
	if t.Datagrams || t.step.Match == Line {
		return t.searched
	}
	return t.searched[:groups[1]]
}

// fail makes a failure of the step.
func (t *talk) fail(class meshv1.Result_ErrorClass, format string, args ...any) *probe.Failure {
	return probe.Failf(t.a, class, format, args...)
}

// expectation makes a failure of something else that came.
func (t *talk) expectation(format string, args ...any) *probe.Failure {
	expected := t.expected()
	return &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT, Expectation: expected,
		Sentence: "expected " + expected + ", and " + fmt.Sprintf(format, args...)}
}

// expected is what the step expects, as written.
func (t *talk) expected() string {
	if t.step.Expect != nil {
		return t.step.Expect.String()
	}
	return quote(t.step.ExpectBytes)
}

// rejected is the failure of what must not come.
func (t *talk) rejected(text []byte) *probe.Failure {
	return t.expectation("%s came, which is rejected (%s)", quote(text), t.step.Reject)
}

// missed is the failure of a step for which nothing came that it expects: err is why nothing more will.
func (t *talk) missed(err error) *probe.Failure {
	got := t.r.Bytes[t.rec.begin:]
	switch {
	case atLimit(err):
		return t.expectation("it is not in the %d bytes that may be read; the newest are %s", t.ReadLimit, quote(got[max(0, len(got)-maxQuote):]))
	case errors.Is(err, io.EOF) && len(got) > 0:
		return t.expectation("%s came before the peer closed the connection", quote(got))
	case errors.Is(err, io.EOF):
		return t.fail(meshv1.Result_CONNECTION_RESET, "the peer closed the connection instead of answering")
	case isTimeout(err) && len(got) > 0:
		return t.expectation("%s came within %s", quote(got), t.patience())
	}
	return t.broken(err)
}
