package decode

const authzFixture = `{
  "name": "inbound/0.0.0.0:8080",
  "address": {"socketAddress": {"address": "0.0.0.0", "portValue": 8080}},
  "filterChains": [{"name": "x", "filters": [{"name": "hcm", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "rds": {"configSource": {"ads": {}}, "routeConfigName": "inbound"},
    "httpFilters": [
      {"name": "grpc", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "grpcService": {"envoyGrpc": {"clusterName": "authz", "authority": "authz.test"}, "timeout": "2s",
          "initialMetadata": [{"key": "X-Key", "value": "v"}, {"key": "x-raw", "rawValue": "cg=="}]},
        "transportApiVersion": "V3", "failureModeAllow": true, "failureModeAllowHeaderAdd": true,
        "withRequestBody": {"maxRequestBytes": 10, "allowPartialMessage": true, "packAsBytes": true},
        "clearRouteCache": true, "statusOnError": {"code": "ServiceUnavailable"},
        "metadataContextNamespaces": ["jwt"], "filterEnabled": {"defaultValue": {"numerator": 50}},
        "filterEnabledMetadata": {"filter": "rbac", "path": [{"key": "id"}], "value": {"stringMatch": {"prefix": "ext"}}},
        "denyAtDisable": {"defaultValue": true, "runtimeKey": "x"}, "includePeerCertificate": true,
        "allowedHeaders": {"patterns": [{"prefix": "x-"}]}, "disallowedHeaders": {"patterns": [{"exact": "x-secret"}]},
        "includeTlsSession": true, "encodeRawHeaders": true, "enableDynamicMetadataIngestion": false,
        "maxDeniedResponseBodyBytes": 100
      }},
      {"name": "http", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "httpService": {"serverUri": {"uri": "https://authz.test", "cluster": "authz-http", "timeout": "1s"}, "pathPrefix": "/check",
          "authorizationRequest": {"allowedHeaders": {"patterns": [{"exact": "cookie"}]}, "headersToAdd": [{"key": "x-a", "value": "b"}]},
          "authorizationResponse": {
            "allowedUpstreamHeaders": {"patterns": [{"exact": "x-user"}]},
            "allowedUpstreamHeadersToAppend": {"patterns": [{"exact": "x-role"}]},
            "allowedClientHeaders": {"patterns": [{"exact": "x-reason"}]},
            "allowedClientHeadersOnSuccess": {"patterns": [{"exact": "x-ok"}]},
            "dynamicMetadataFromHeaders": {"patterns": [{"exact": "x-meta"}]}}}
      }},
      {"name": "other", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "httpService": {"serverUri": {"uri": "http://authz.test", "cluster": "authz-http", "timeout": "1s"}, "pathOverride": "/check"}
      }},
      {"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
    ]
  }}]}]
}`

const authzRoutesFixture = `{
  "name": "inbound",
  "virtualHosts": [{"name": "all", "domains": ["*"],
    "typedPerFilterConfig": {"grpc": {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
      "checkSettings": {"contextExtensions": {"host": "all", "route": "none"}}}},
    "routes": [
    {"match": {"prefix": "/a"}, "nonForwardingAction": {},
      "typedPerFilterConfig": {"grpc": {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        "checkSettings": {"contextExtensions": {"route": "a"}, "withRequestBody": {"maxRequestBytes": 5}}}}},
    {"match": {"prefix": "/b"}, "nonForwardingAction": {},
      "typedPerFilterConfig": {"grpc": {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        "checkSettings": {"disableRequestBodyBuffering": true}}}},
    {"match": {"prefix": "/c"}, "nonForwardingAction": {},
      "typedPerFilterConfig": {"grpc": {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", "disabled": true}}}
  ]}]
}`
