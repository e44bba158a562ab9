package capture

import (
	"fmt"
	"strings"
)

// Values are what the captures of one probe have found so far, by name. They belong to the goroutine of that probe.
type Values map[string]string

// Expand replaces every `${name}` in the text by its value, once: a value is not looked into. `$${` becomes `${`. It fails when a value is not there (a check that was
// validated has none such, see [Variables]) or when the text gets longer than [MaxExpanded].
func (v Values) Expand(text string) (string, error) {
	if !strings.Contains(text, "${") {
		return text, nil
	}
	var out strings.Builder
	err := scan(text, func(plain string) error {
		return write(&out, plain)
	}, func(name string) error {
		value, ok := v[name]
		if !ok {
			return fmt.Errorf("${%s} is not captured by any step before", short(name))
		}
		return write(&out, value)
	})
	if err != nil {
		return "", err
	}
	return out.String(), nil
}

func write(out *strings.Builder, s string) error {
	if out.Len()+len(s) > MaxExpanded {
		return fmt.Errorf("the text is longer than %d KiB with the captured values in it", MaxExpanded>>10)
	}
	out.WriteString(s)
	return nil
}

// Variables are the names that a text uses as `${name}`, in order. The error says where a `${` is not closed, or holds no name.
func Variables(text string) ([]string, error) {
	var names []string
	err := scan(text, func(string) error { return nil }, func(name string) error {
		if !namePattern.MatchString(name) {
			return fmt.Errorf("${%s} is not a captured value: a name has 1 to 63 characters of a-z, 0-9 and _; write $${ for a plain ${", short(name))
		}
		names = append(names, name)
		return nil
	})
	return names, err
}

// scan goes through a text, piece by piece.
func scan(text string, plain, variable func(string) error) error {
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			return plain(text)
		}
		if i > 0 && text[i-1] == '$' {
			if err := plain(text[:i-1] + "${"); err != nil {
				return err
			}
			text = text[i+2:]
			continue
		}
		if err := plain(text[:i]); err != nil {
			return err
		}
		name, rest, ok := strings.Cut(text[i+2:], "}")
		if !ok {
			return fmt.Errorf("a ${ is not closed: write ${name}, or $${ for a plain ${")
		}
		if err := variable(name); err != nil {
			return err
		}
		text = rest
	}
}
