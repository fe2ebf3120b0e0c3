package ads

import "time"

// answerLocked queues the answer to a response. That to one which brought nothing has
// to wait for its turn, and takes the place of another one that waits: it says the same
// of what the server sent later. An answer that does not wait keeps those before it
// from waiting, because they go in order.
func (lt *linkType) answerLocked(answer reply, brought news) {
	now := time.Now()
	if last := len(lt.sub.replies) - 1; last >= 0 && lt.sub.replies[last].due.After(now) {
		if brought == nothing {
			answer.due = lt.sub.replies[last].due
			lt.sub.replies[last] = answer
			return
		}
		lt.sub.replies[last].due = now
	}
	answer.due = now
	if brought == nothing {
		answer.due = now.Add(lt.link.useless.ReserveN(now, 1).DelayFrom(now))
	}
	lt.sub.replies = append(lt.sub.replies, answer)
}

// takeReplyLocked returns the oldest answer that is due, nil if there is none. With
// early one that is not due is, too.
func (lt *linkType) takeReplyLocked(early bool) *reply {
	if len(lt.sub.replies) == 0 {
		return nil
	}
	r := lt.sub.replies[0]
	if !early && r.due.After(time.Now()) {
		return nil
	}
	lt.sub.replies = lt.sub.replies[1:]
	if len(lt.sub.replies) == 0 {
		lt.sub.replies = nil
	}
	return &r
}

// heldUntil returns when the next answer is due of those that are not; zero if there
// is none.
func (l *link) heldUntil() (next time.Time) {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	for _, lt := range l.order {
		if len(lt.sub.replies) == 0 {
			continue
		}
		if due := lt.sub.replies[0].due; next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return next
}
