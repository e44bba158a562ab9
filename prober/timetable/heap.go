package timetable

// planned is a row and when it is due: in nanoseconds since 1970 on the prober's own clock, so that a step of the mesh's clock moves no planned start.
type planned struct {
	due int64
	row *Row
}

// rowHeap has the row that is due first at its head. The time stands beside the row, and the order is by one number, since a busy prober plans ten thousand starts a second.
type rowHeap []planned

func (h *rowHeap) push(r *Row, due int64) {
	*h = append(*h, planned{})
	h.up(len(*h)-1, planned{due, r})
}

// remove takes out the row at place i.
func (h *rowHeap) remove(i int) {
	old := *h
	n := len(old) - 1
	last := old[n]
	old[n] = planned{}
	*h = old[:n]
	if i < n {
		h.place(i, last)
	}
}

// fix gives the row at place i another time.
func (h *rowHeap) fix(i int, due int64) { h.place(i, planned{due, (*h)[i].row}) }

// place puts p where it belongs, from the free place i.
func (h *rowHeap) place(i int, p planned) {
	if i > 0 && p.due < (*h)[(i-1)/2].due {
		h.up(i, p)
		return
	}
	h.down(i, p)
}

// up moves p from the free place i towards the head.
func (h *rowHeap) up(i int, p planned) {
	for i > 0 {
		parent := (i - 1) / 2
		if (*h)[parent].due <= p.due {
			break
		}
		h.set(i, (*h)[parent])
		i = parent
	}
	h.set(i, p)
}

// down moves p from the free place i away from the head.
func (h *rowHeap) down(i int, p planned) {
	for {
		child := 2*i + 1
		if child >= len(*h) {
			break
		}
		if right := child + 1; right < len(*h) && (*h)[right].due < (*h)[child].due {
			child = right
		}
		if p.due <= (*h)[child].due {
			break
		}
		h.set(i, (*h)[child])
		i = child
	}
	h.set(i, p)
}

func (h *rowHeap) set(i int, p planned) {
	(*h)[i] = p
	p.row.index = i
}
