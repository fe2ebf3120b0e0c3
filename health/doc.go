// Package health decides which endpoints are fit for use by asking them: Envoy's
// active health checks. It says when to ask next and what an answer means, and
// neither dials nor sleeps.
//
// A [Tracker] follows one endpoint. After each check it is told the [Result] and
// says what changed and how long to wait:
//
//	var tracker health.Tracker
//	wait := config.First(rand.Uint64)
//	for {
//		sleep(wait)
//		change := tracker.Done(config, check())
//		if change.Changed {
//			use(tracker.State())
//		}
//		wait = config.Next(change, traffic, rand.Uint64)
//	}
package health
