package oauth

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// A queue is the one scheduler of all sessions: a heap of when each wants to be
// looked at next, and one timer. A session costs it one element, neither a
// goroutine nor a timer. The heap goes by the monotonic clock, which doesn't
// jump; but that may stop while the machine sleeps, and so do timers. So once
// in a while all elements are held against the wall clock.
type queue struct {
	mu     sync.Mutex
	items  queueHeap
	looked time.Duration // when all were held against the wall clock, monotonic
	wake   chan struct{} // the first element changed
}

type queueItem struct {
	at      instant
	session *Session
	index   int // in the heap, -1 if not there
}

// lookAround is how late a session may be looked at after a sleep.
const lookAround = time.Minute

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// set schedules the item's session; a zero at takes it off.
func (q *queue) set(it *queueItem, at instant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it.at = at
	switch {
	case at.wall.IsZero() && it.index >= 0:
		heap.Remove(&q.items, it.index)
	case at.wall.IsZero():
		return
	case it.index >= 0:
		heap.Fix(&q.items, it.index)
	default:
		heap.Push(&q.items, it)
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// due takes off the items whose time has come by either clock, and tells when
// to look again.
func (q *queue) due(now instant) (due []*Session, next time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.mono-q.looked >= lookAround {
		q.looked = now.mono
		due = q.items.takeDue(now)
	}
	for len(q.items) > 0 && q.items[0].at.mono <= now.mono {
		due = append(due, heap.Pop(&q.items).(*queueItem).session)
	}
	next = q.looked + lookAround - now.mono
	if len(q.items) > 0 {
		next = min(next, q.items[0].at.mono-now.mono)
	}
	return due, next
}

// run calls look for each session that is due, until ctx ends.
func (q *queue) run(ctx context.Context, now func() instant, look func(*Session)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		case <-timer.C:
		}
		due, next := q.due(now())
		for _, s := range due {
			look(s)
		}
		timer.Reset(next)
	}
}

type queueHeap []*queueItem

// takeDue looks at all items and takes off those that are due.
func (h *queueHeap) takeDue(now instant) (due []*Session) {
	rest := (*h)[:0]
	for _, it := range *h {
		if now.before(it.at) {
			it.index = len(rest)
			rest = append(rest, it)
		} else {
			it.index = -1
			due = append(due, it.session)
		}
	}
	clear((*h)[len(rest):])
	*h = rest
	if due != nil {
		heap.Init(h)
	}
	return due
}

func (h queueHeap) Len() int           { return len(h) }
func (h queueHeap) Less(i, j int) bool { return h[i].at.mono < h[j].at.mono }
func (h queueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *queueHeap) Push(x any) {
	it := x.(*queueItem)
	it.index = len(*h)
	*h = append(*h, it)
}
func (h *queueHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	it.index = -1
	return it
}
