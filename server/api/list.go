package api

import (
	"sort"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/server/api/filter"
	"github.com/probemesh/probemesh/server/api/page"
)

// scanBatch is how many resources are read at once when a filter may drop most of them.
const scanBatch = 500

// source reads up to limit resources that come after a name (empty: from the first), and says where the next read goes on: after the name `next`,
// or nowhere when it is empty.
type source[T any] func(after string, limit int) (batch []T, next string, err error)

// listing is what a list call has in its request.
type listing struct {
	call   string // such as "ListChecks"
	filter string
	keys   []filter.Key
	token  string
	size   int32
}

// read gives the filter and the cursor of the call, or the faults of both.
func (l listing) read() (filter.Filter, page.Cursor, error) {
	f, err := filter.Parse(l.filter, l.keys)
	if err != nil {
		return f, page.Cursor{}, err
	}
	c, err := page.Read(l.call, f.String(), l.token, l.size)
	return f, c, err
}

// collect gives a page of what keep accepts, and the token of the next page. It reads one accepted resource more than it sends, so that there is a
// token exactly when there is more.
func collect[T interface{ GetName() string }](c page.Cursor, filtered bool, from source[T], keep func(T) bool) ([]T, string, error) {
	limit := c.Size + 1
	if filtered {
		limit = max(limit, scanBatch)
	}
	var found []T
	for after := c.After; ; {
		batch, next, err := from(after, limit)
		if err != nil {
			return nil, "", err
		}
		for _, r := range batch {
			if !keep(r) {
				continue
			}
			if len(found) == c.Size {
				return found, c.Next(found[c.Size-1].GetName()), nil
			}
			found = append(found, r)
		}
		if next == "" {
			return found, "", nil
		}
		after = next
	}
}

// inMemory is the source of a list that is at hand, sorted by name.
func inMemory[T interface{ GetName() string }](all []T) source[T] {
	return func(after string, limit int) ([]T, string, error) {
		from := sort.Search(len(all), func(i int) bool { return all[i].GetName() > after })
		to := min(from+limit, len(all))
		return all[from:to], nextAfter(all[from:to], to < len(all)), nil
	}
}

// nextAfter is the name to go on after, when there is more.
func nextAfter[T interface{ GetName() string }](batch []T, more bool) string {
	if !more || len(batch) == 0 {
		return ""
	}
	return batch[len(batch)-1].GetName()
}

// enumNames are the names of an enum's values that are ever returned, in the order of their numbers.
func enumNames(names map[int32]string) []string {
	var list []string
	for number := int32(1); int(number) < len(names); number++ {
		list = append(list, names[number])
	}
	return list
}

// isNotFound tells whether err says that the resource does not exist.
func isNotFound(err error) bool { return fault.IsReason(err, reasonNotFound) }
