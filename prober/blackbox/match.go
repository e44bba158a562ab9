package blackbox

import (
	"bytes"
	"context"
	"regexp"
	"strings"
)

const (
	// matchAtOnce is up to how many bytes a text is matched without looking at the clock. The worst expression of a thousand repetitions takes a tenth of a second for it.
	matchAtOnce = 16 << 10
	// matchSlice is after how many characters of a longer one the clock is looked at.
	matchSlice = 1 << 10
)

// matches tells whether an expression matches a text. RE2 takes time in proportion to the text, but also to the expression: for many megabytes it may be minutes. It ends when ctx does, with
// its error.
func matches(ctx context.Context, r *regexp.Regexp, text []byte) (bool, error) {
	if len(text) <= matchAtOnce {
		return r.Match(text), nil
	}
	if literal, _ := r.LiteralPrefix(); literal != "" && strings.HasPrefix(r.String(), regexp.QuoteMeta(literal)) {
		// nothing before the literal has a say, neither flags nor anchors, so that a match begins where it stands
		first := bytes.Index(text, []byte(literal))
		if first < 0 || len(r.String()) == len(regexp.QuoteMeta(literal)) {
			return first >= 0, nil
		}
		text = text[first:]
	}
	in := &runes{text: bytes.NewReader(text), ctx: ctx}
	found := r.MatchReader(in)
	return found && in.err == nil, in.err
}

// runes is a text, character by character, that ends when its context does.
type runes struct {
	text *bytes.Reader
	ctx  context.Context //nolint:containedctx // a text is read within one call
	n    int
	err  error
}

// ReadRune implements io.RuneReader.
func (t *runes) ReadRune() (rune, int, error) {
	if t.n++; t.n%matchSlice == 0 {
		if t.err = t.ctx.Err(); t.err != nil {
			return 0, 0, t.err
		}
	}
	return t.text.ReadRune()
}
