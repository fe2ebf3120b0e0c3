package decode

// sessionFixture is a listener whose callers stay with an endpoint.
const sessionFixture = `{
  "name": "shop:80",
  "apiListener": {"apiListener": {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "rds": {"configSource": {"ads": {}}, "routeConfigName": "shop:80"},
    "httpFilters": [
      {"name": "cookie", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
        "strict": true, "statusOnStrictDestinationNotFound": 404, "sessionState": ` + cookieState + `
        {"name": "s", "ttl": "60s", "path": "/cart", "attributes": [{"name": "SameSite", "value": "Lax"}]}}}}},
      {"name": "header", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
        "sessionState": ` + headerState + `"X-Session"}}}},
      {"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
    ]
  }}
}`

// sessionRoutesFixture is a table of routes that have sessions of their own, and
// none.
const sessionRoutesFixture = `{
  "name": "shop:80",
  "virtualHosts": [
    {"name": "none", "domains": ["none"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"}}], "typedPerFilterConfig": {"cookie": {
      "@type": "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute", "disabled": true}}},
    {"name": "own", "domains": ["own"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c"}}], "typedPerFilterConfig": {"cookie": {
      "@type": "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
      "statefulSession": {"sessionState": ` + headerState + `"x"}}}}}}
  ]
}`
