package oauth

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// A queue is the one scheduler of all sessions: a heap of when each wants to be
// looked at next, and one timer. A session costs it one element, neither a
// goroutine nor a timer.
type queue struct {
	mu    sync.Mutex
	items queueHeap
	wake  chan struct{} // the first element changed
}

type queueItem struct {
	at      instant
	session *Session
	index   int // in the heap, -1 if not there
}

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

// due takes off the items whose time has come, and tells when the next one's
// comes.
func (q *queue) due(now instant) (due []*Session, next time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) > 0 && !now.before(q.items[0].at) {
		due = append(due, heap.Pop(&q.items).(*queueItem).session)
	}
	// Look at least so often: timers stand still while the machine sleeps.
	next = time.Minute
	if len(q.items) > 0 {
		next = min(next, -now.sub(q.items[0].at))
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

func (h queueHeap) Len() int           { return len(h) }
func (h queueHeap) Less(i, j int) bool { return h[i].at.wall.Before(h[j].at.wall) }
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
	*h = old[:len(old)-1]
	it.index = -1
	return it
}
