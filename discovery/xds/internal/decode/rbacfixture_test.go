package decode

// guardedFixture has RBAC filters of every kind: about connections, about
// requests, enforced and on trial.
const guardedFixture = `{
  "name": "guarded",
  "address": {"socketAddress": {"address": "0.0.0.0", "portValue": 8080}},
  "defaultFilterChain": {"filters": [
    {"name": "connections", "typedConfig": {
      "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
      "statPrefix": "tcp.", "shadowRulesStatPrefix": "trial.",
      "rules": {"policies": {"p": {
        "permissions": [{"destinationPort": 8080}, {"destinationPortRange": {"start": 9000, "end": 9100}}],
        "principals": [{"directRemoteIp": {"addressPrefix": "10.0.0.0", "prefixLen": 8}}]}}},
      "shadowRules": {"action": "LOG", "policies": {"p": {"permissions": [{"any": true}], "principals": [{"any": true}]}}}
    }},
    {"name": "hcm", "typedConfig": {
      "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
      "normalizePath": true, "mergeSlashes": true, "pathWithEscapedSlashesAction": "REJECT_REQUEST",
      "routeConfig": {"name": "inbound", "virtualHosts": [{"domains": ["*"], "routes": [{"match": {"prefix": "/"}, "nonForwardingAction": {},
        "typedPerFilterConfig": {"rbac": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
          "rbac": {"rules": {"action": "DENY", "policies": {}}}}}}]}]},
      "httpFilters": [
        {"name": "rbac", "typedConfig": {
          "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
          "rulesStatPrefix": "a.", "shadowRulesStatPrefix": "b.",
          "shadowRules": {"action": "DENY", "policies": {}},
          "rules": {"action": "DENY", "policies": {
            "b": {"permissions": [{"any": true}], "principals": [{"any": true}], "condition": {"id": "1", "callExpr": {"function": "_&&_", "args": [
              {"callExpr": {"function": "startsWith", "target": {"selectExpr": {"operand": {"identExpr": {"name": "request"}}, "field": "url_path"}}, "args": [{"constExpr": {"stringValue": "/a"}}]}},
              {"comprehensionExpr": {"iterVar": "x", "iterRange": {"listExpr": {"elements": [{"constExpr": {"int64Value": "1"}}]}}, "accuVar": "y", "accuInit": {"constExpr": {"boolValue": false}},
                "loopCondition": {"constExpr": {"boolValue": true}}, "loopStep": {"identExpr": {"name": "y"}}, "result": {"identExpr": {"name": "y"}}}}]}}},
            "c": {"permissions": [{"any": true}], "principals": [{"any": true}], "checkedCondition": {"expr": {"callExpr": {"function": "@in", "args": [
              {"constExpr": {"stringValue": "k"}}, {"structExpr": {"entries": [{"mapKey": {"constExpr": {"stringValue": "k"}}, "value": {"constExpr": {"uint64Value": "1"}}}]}}]}}}},
            "a": {
              "permissions": [{"andRules": {"rules": [
                {"orRules": {"rules": [{"header": {"name": "X-Role", "exactMatch": "admin"}}, {"header": {"name": "Host", "exactMatch": "a.b"}}]}},
                {"notRule": {"urlPath": {"path": {"prefix": "/public"}}}},
                {"uriTemplate": {"name": "t", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", "pathTemplate": "/a/*/c"}}},
                {"destinationIp": {"addressPrefix": "::ffff:10.0.0.1", "prefixLen": 104}},
                {"metadata": {"filter": "f", "path": [{"key": "a"}, {"key": "b"}], "value": {"stringMatch": {"exact": "v"}}, "invert": true}},
                {"sourcedMetadata": {"metadataSource": "DYNAMIC", "metadataMatcher": {"filter": "f", "path": [{"key": "a"}], "value": {"nullMatch": {}}}}},
                {"requestedServerName": {"suffix": ".shop"}}
              ]}}],
              "principals": [{"andIds": {"ids": [
                {"orIds": {"ids": [{"authenticated": {}}, {"authenticated": {"principalName": {"prefix": "spiffe://td/"}}}]}},
                {"notId": {"sourceIp": {"addressPrefix": "2001:db8::", "prefixLen": 32}}},
                {"remoteIp": {"addressPrefix": "10.1.0.0", "prefixLen": 16}},
                {"header": {"name": "x-user", "presentMatch": true}},
                {"urlPath": {"path": {"exact": "/x"}}},
                {"metadata": {"filter": "f", "path": [{"key": "a"}], "value": {"orMatch": {"valueMatchers": [
                  {"listMatch": {"oneOf": {"boolMatch": true}}}, {"doubleMatch": {"exact": 3}}, {"doubleMatch": {"range": {"start": 1, "end": 2}}}, {"presentMatch": true}]}}}},
                {"sourcedMetadata": {"metadataMatcher": {"filter": "f", "path": [{"key": "a"}], "value": {"boolMatch": true}}}},
                {"custom": {"name": "c", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config",
                  "sanMatcher": {"sanType": "DNS", "matcher": {"exact": "a.b"}}}}},
                {"custom": {"name": "c", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config",
                  "anyValidatedClientCertificate": true}}}
              ]}}]
            }
          }}
        }},
        {"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]
  }
}`
