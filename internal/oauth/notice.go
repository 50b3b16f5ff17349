package oauth

import "slices"

// noteStore keeps what the store tells of itself, and tells the operator.
func (ss *Sessions) noteStore(n StoreNotice) {
	was := ss.Store()
	log := ss.log.Load()
	for _, m := range n.Mended {
		log.Error("the token store was mended", "what", m)
	}
	switch {
	case n.Problem == was.Problem:
	case n.Problem == "":
		ss.observer.send(Event{Kind: EventRecovered, At: ss.now().wall})
		log.Info("the token store is well again")
	case was.Problem == "":
		ss.observer.send(Event{Kind: EventDegraded, At: ss.now().wall, Err: ErrStoreUnavailable, Detail: n.Problem})
		log.Error("the token store is degraded; it goes on, and tries again every few seconds", "problem", n.Problem)
	default: // its words change with every try
		log.Debug("the token store is still degraded", "problem", n.Problem)
	}
	n.Mended = append(slices.Clone(was.Mended), n.Mended...)
	n.Mended = n.Mended[max(0, len(n.Mended)-maxMended):]
	ss.notice.Store(&n)
}

// maxMended is how many mendings are remembered for the status.
const maxMended = 10

// Store tells what is wrong with the store now, and the last of what was mended
// since it was opened.
func (ss *Sessions) Store() StoreNotice {
	if n := ss.notice.Load(); n != nil {
		return *n
	}
	return StoreNotice{}
}
