// Package condition decides by expressions: the conditions in CEL, the Common
// Expression Language, that Envoy's policies may have. They are evaluated by
// cel-go; what they may ask about are the attributes of Envoy, of [Facts].
//
// An expression is compiled when a configuration is decoded. One that does not
// type-check, that asks about another attribute, or whose value cannot be true or
// false, is an error then.
//
// Two things are stricter than in Envoy, where an expression that cannot be
// evaluated does not match, so that what should have been denied is allowed:
//
//   - An expression that has no value, because an attribute is missing or the cost
//     limit is exceeded, is neither certain nor impossible: an ALLOW does not
//     match, and a DENY does.
//   - A request that can be read in two ways (a header that is there twice, a path
//     with escapes, a host with a port, a certificate with several names) is asked
//     about in every reading: an ALLOW matches if all hold, a DENY if one does. The
//     parts of a value with commas are readings too, unless for an ALLOW that only
//     says what values are, without "!", "!=" and the like.
//
// The text after "in" tells whether something is there: the expression
// '"x-role" in request.headers && request.headers["x-role"] == "admin"' has a value
// for every request.
package condition
