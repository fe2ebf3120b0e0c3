package decode

// keySetFixture is a key set in a JSON text.
const keySetFixture = `{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"a\",` +
	`\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\",\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\"}]}`

const tokensFixture = `{
  "name": "inbound/0.0.0.0:8080",
  "address": {"socketAddress": {"address": "0.0.0.0", "portValue": 8080}},
  "filterChains": [{"name": "x", "filters": [{"name": "hcm", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "rds": {"configSource": {"ads": {}}, "routeConfigName": "inbound"},
    "httpFilters": [
      {"name": "jwt", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {
          "local": {
            "issuer": "https://issuer.test", "audiences": ["shop", "bank"], "subjects": {"prefix": "spiffe://"},
            "requireExpiration": true, "maxLifetime": "3600s", "localJwks": {"inlineString": "` + keySetFixture + `"},
            "forward": true, "fromHeaders": [{"name": "X-Jwt", "valuePrefix": "Token "}], "fromParams": ["jwt"],
            "fromCookies": ["session"], "forwardPayloadHeader": "X-Payload", "padForwardPayloadHeader": true,
            "payloadInMetadata": "payload", "normalizePayloadInMetadata": {"spaceDelimitedClaims": ["scope"]},
            "headerInMetadata": "header", "failedStatusInMetadata": "failure", "clockSkewSeconds": 5,
            "jwtCacheConfig": {"jwtCacheSize": 7}, "clearRouteCache": true,
            "claimToHeaders": [
              {"headerName": "X-Role", "claimName": "realm.role"},
              {"headerName": "X-Url", "claimPath": [{"key": "https://a.b"}, {"key": "c"}]}
            ]
          },
          "remote": {
            "remoteJwks": {
              "httpUri": {"uri": "https://issuer.test:8443/keys?v=1", "cluster": "issuer", "timeout": "2s"},
              "cacheDuration": "300s", "asyncFetch": {"failedRefetchDuration": "3s"},
              "retryPolicy": {"numRetries": 4, "retryBackOff": {"baseInterval": "0.5s", "maxInterval": "9s"}}
            }
          }
        },
        "rules": [
          {"match": {"prefix": "/open"}},
          {"match": {"prefix": "/named"}, "requirementName": "it"},
          {"match": {"prefix": "/other"}, "requires": {"providerAndAudiences": {"providerName": "local", "audiences": ["x"]}}},
          {"match": {"prefix": "/"}, "requires": {"requiresAny": {"requirements": [
            {"providerName": "local"},
            {"requiresAll": {"requirements": [{"providerName": "remote"}, {"allowMissingOrFailed": {}}]}},
            {"allowMissing": {}}
          ]}}}
        ],
        "requirementMap": {"it": {"providerName": "remote"}},
        "bypassCorsPreflight": true, "stripFailureResponse": true
      }},
      {"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
    ]
  }}]}]
}`

const tokenRoutesFixture = `{
  "name": "inbound",
  "virtualHosts": [{"name": "all", "domains": ["*"], "routes": [
    {"match": {"prefix": "/a"}, "nonForwardingAction": {},
      "typedPerFilterConfig": {"jwt": {"@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig", "requirementName": "it"}}},
    {"match": {"prefix": "/b"}, "nonForwardingAction": {},
      "typedPerFilterConfig": {"jwt": {"@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig", "disabled": true}}}
  ]}]
}`
