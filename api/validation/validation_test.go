package validation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/api/validation"
	"github.com/pbxhook/pbxhook/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// The valid objects that every case starts from.
const (
	simotel = `
provider: Simotel
credentials: {secretRef: {name: pbx}}
targets: [{name: crm, url: "https://crm.example.com/hooks"}]
`
	voipstudio = `
provider: VoIPstudio
credentials: {secretRef: {name: pbx}}
targets: [{name: crm, url: "https://crm.example.com/hooks"}]
`
	acefone = `
provider: Acefone
timeZone: Asia/Kolkata
credentials: {secretRef: {name: pbx}}
targets: [{name: crm, url: "https://crm.example.com/hooks"}]
`
)

// ruleCase is one object, or one change, and the text with which both judges refuse it; empty when
// both must accept it. set is merged into the base as a JSON merge patch.
type ruleCase struct {
	base string
	set  string
	then string // a change after creation; judged instead of the creation
	want string
	meta string // metadata.name, when it is the name that is tried
}

// ruleCases hold, for every rule of the kind, what it refuses and its nearest neighbour that it accepts.
var ruleCases = map[string]ruleCase{
	"minimal Simotel":    {base: simotel},
	"minimal VoIPstudio": {base: voipstudio},
	"minimal Acefone":    {base: acefone},

	"name of 52":                  {base: simotel, meta: strings.Repeat("a", 52)},
	"name of 53":                  {base: simotel, meta: strings.Repeat("a", 53), want: "metadata.name must start with a letter"},
	"name with a leading digit":   {base: simotel, meta: "1pbx", want: "metadata.name must start with a letter"},
	"name with a dot":             {base: simotel, meta: "a.b", want: "metadata.name must start with a letter"},
	"unknown provider":            {base: simotel, set: `{provider: Twilio}`, want: "Unsupported value"},
	"provider missing":            {base: simotel, set: `{provider: null}`, want: "provider"},
	"provider changed":            {base: simotel, then: `{provider: VoIPstudio}`, want: "provider cannot be changed"},
	"version of Simotel":          {base: simotel, set: `{version: Rest4}`},
	"version unknown":             {base: simotel, set: `{version: Rest5}`, want: "Unsupported value"},
	"version of VoIPstudio":       {base: voipstudio, set: `{version: G4}`, want: "version is Simotel's alone"},
	"version of Acefone":          {base: acefone, set: `{version: G4}`, want: "version is Simotel's alone"},
	"version changed":             {base: simotel, set: `{version: G4}`, then: `{version: Rest4}`},
	"method GET of Simotel":       {base: simotel, set: `{method: GET}`},
	"method PUT":                  {base: simotel, set: `{method: PUT}`, want: "Unsupported value"},
	"method POST of VoIPstudio":   {base: voipstudio, set: `{method: POST}`},
	"method GET of VoIPstudio":    {base: voipstudio, set: `{method: GET}`, want: "VoIPstudio sends POST alone"},
	"no time zone for Acefone":    {base: acefone, set: `{timeZone: null}`, want: "timeZone is required for Acefone"},
	"time zone of three parts":    {base: simotel, set: `{timeZone: America/Argentina/Salta}`},
	"time zone with a path":       {base: simotel, set: `{timeZone: ../etc/passwd}`, want: "timeZone"},
	"time zone empty":             {base: simotel, set: `{timeZone: ""}`, want: "timeZone"},
	"region":                      {base: simotel, set: `{defaultRegion: IR}`},
	"region in lower case":        {base: simotel, set: `{defaultRegion: ir}`, want: "defaultRegion"},
	"events of Simotel":           {base: simotel, set: `{events: [NewState, Cdr, ReservedCallInFront]}`},
	"events of another provider":  {base: simotel, set: `{events: [call.hangup]}`, want: "events of Simotel are"},
	"events of VoIPstudio":        {base: voipstudio, set: `{events: [call.hangup, monitor.audio_ready, CallStateChange, QueueWrapUp]}`},
	"events name the wrong one":   {base: simotel, set: `{events: [Cdr, Cdrs]}`, want: "ReservedCallInFront: got Cdrs"},
	"events unknown to VoIP":      {base: voipstudio, set: `{events: [CallHangup]}`, want: "events of VoIPstudio are"},
	"events of Acefone":           {base: acefone, set: `{events: [CallMissed, DTMFOption]}`},
	"events unknown to Acefone":   {base: acefone, set: `{events: [Cdr]}`, want: "events of Acefone are"},
	"events twice":                {base: simotel, set: `{events: [Cdr, Cdr]}`, want: "Duplicate value"},
	"events empty":                {base: simotel, set: `{events: []}`, want: "events"},
	"fields of Acefone":           {base: acefone, set: `{fields: {call.id: my_call_key}}`},
	"fields of Simotel":           {base: simotel, set: `{fields: {call.id: my_call_key}}`, want: "fields is Acefone's alone"},
	"fields unknown":              {base: acefone, set: `{fields: {call.ident: my_call_key}}`, want: "keys are the canonical fields"},
	"fields to nothing":           {base: acefone, set: `{fields: {call.id: ""}}`, want: "cannot be empty"},
	"filter complete":             {base: voipstudio, set: `{filter: {callTypes: [Inbound], numbers: ["+442035141598"], contexts: [QUEUE], expression: "event.call.talkSeconds > 10"}}`},
	"filter empty":                {base: simotel, set: `{filter: {}}`, want: "filter"},
	"filter of unknown call type": {base: simotel, set: `{filter: {callTypes: [Sideways]}}`, want: "Unsupported value"},
	"contexts of Simotel":         {base: simotel, set: `{filter: {contexts: [QUEUE]}}`, want: "contexts is VoIPstudio's alone"},
	"numbers not numbers":         {base: simotel, set: `{filter: {numbers: [sales]}}`, want: "numbers"},
	"expression too long":         {base: simotel, set: `{filter: {expression: "` + strings.Repeat("x", 4097) + `"}}`, want: "expression"},

	"credentials missing":       {base: simotel, set: `{credentials: null}`, want: "credentials"},
	"credentials empty":         {base: simotel, set: `{credentials: {secretRef: null}}`, want: "exactly one of secretRef and anonymous"},
	"credentials both":          {base: simotel, set: `{credentials: {anonymous: {}}}`, want: "exactly one of secretRef and anonymous"},
	"credentials anonymous":     {base: simotel, set: `{credentials: {secretRef: null, anonymous: {}}}`},
	"token name":                {base: acefone, set: `{credentials: {tokenName: X-API-Key}}`},
	"token name without secret": {base: acefone, set: `{credentials: {secretRef: null, anonymous: {}, tokenName: X-API-Key}}`, want: "tokenName needs secretRef"},
	"token name with a space":   {base: acefone, set: `{credentials: {tokenName: "X API"}}`, want: "tokenName"},
	"secret without a name":     {base: simotel, set: `{credentials: {secretRef: {name: ""}}}`, want: "name"},

	"no targets":              {base: simotel, set: `{targets: []}`, want: "targets"},
	"32 targets":              {base: simotel, set: manyTargets(32)},
	"33 targets":              {base: simotel, set: manyTargets(33), want: "must have at most 32 items"},
	"targets of one name":     {base: simotel, set: `{targets: [{name: a, url: "http://a"}, {name: a, url: "http://b"}]}`, want: "Duplicate value"},
	"target name with caps":   {base: simotel, set: `{targets: [{name: CRM, url: "http://a"}]}`, want: "name"},
	"neither url nor service": {base: simotel, set: `{targets: [{name: a}]}`, want: "exactly one of url and service"},
	"url and service":         {base: simotel, set: `{targets: [{name: a, url: "http://a", service: {name: b}}]}`, want: "exactly one of url and service"},
	"service":                 {base: simotel, set: `{targets: [{name: a, service: {name: b, port: 8080, path: /hooks}}]}`},
	"service with port 0":     {base: simotel, set: `{targets: [{name: a, service: {name: b, port: 0}}]}`, want: "port"},
	"service with port 65536": {base: simotel, set: `{targets: [{name: a, service: {name: b, port: 65536}}]}`, want: "port"},
	"service with a bad path": {base: simotel, set: `{targets: [{name: a, service: {name: b, path: hooks}}]}`, want: "path"},
	"url with user info":      {base: simotel, set: `{targets: [{name: a, url: "https://u:p@crm.example.com/"}]}`, want: "url"},
	"url with an @ in path":   {base: simotel, set: `{targets: [{name: a, url: "https://crm.example.com/@me?a=b@c"}]}`},
	"url with a fragment":     {base: simotel, set: `{targets: [{name: a, url: "https://crm.example.com/#top"}]}`, want: "url"},
	"url of ftp":              {base: simotel, set: `{targets: [{name: a, url: "ftp://crm.example.com/"}]}`, want: "url"},
	"url without a host":      {base: simotel, set: `{targets: [{name: a, url: "https:///hooks"}]}`, want: "url"},
	"url relative":            {base: simotel, set: `{targets: [{name: a, url: "/hooks"}]}`, want: "url"},
	"url with a space":        {base: simotel, set: `{targets: [{name: a, url: "https://crm.example.com/a b"}]}`, want: "url"},
	"url with port 65535":     {base: simotel, set: `{targets: [{name: a, url: "https://crm.example.com:65535/"}]}`},
	"url with port 65536":     {base: simotel, set: `{targets: [{name: a, url: "https://crm.example.com:65536/"}]}`, want: "url"},
	"url of IPv6":             {base: simotel, set: `{targets: [{name: a, url: "http://[fd00::1]:8080/"}]}`},
	"event types":             {base: simotel, set: `{targets: [{name: a, url: "http://a", eventTypes: [call.answered, unparsed]}]}`},
	"event type unknown":      {base: simotel, set: `{targets: [{name: a, url: "http://a", eventTypes: [call.hangup]}]}`, want: "Unsupported value"},
	"format unknown":          {base: simotel, set: `{targets: [{name: a, url: "http://a", format: XML}]}`, want: "Unsupported value"},
	"template":                {base: simotel, set: `{targets: [{name: a, url: "http://a", format: Template, template: "{}", method: PUT}]}`},
	"template without format": {base: simotel, set: `{targets: [{name: a, url: "http://a", template: "{}"}]}`, want: "template goes with format Template"},
	"format without template": {base: simotel, set: `{targets: [{name: a, url: "http://a", format: Template}]}`, want: "template goes with format Template"},
	"method PUT, CloudEvents": {base: simotel, set: `{targets: [{name: a, url: "http://a", method: PUT}]}`, want: "method other than POST"},
	"headers":                 {base: simotel, set: `{targets: [{name: a, url: "http://a", headers: [{name: X-Tenant, value: "7"}, {name: X-Key, valueFrom: {secretKeyRef: {name: crm, key: k}}}]}]}`},
	"header without value":    {base: simotel, set: `{targets: [{name: a, url: "http://a", headers: [{name: X-Tenant}]}]}`, want: "exactly one of value and valueFrom"},
	"header with two values":  {base: simotel, set: `{targets: [{name: a, url: "http://a", headers: [{name: X, value: "7", valueFrom: {secretKeyRef: {name: crm, key: k}}}]}]}`, want: "exactly one of value and valueFrom"},
	"header with a new line":  {base: simotel, set: `{targets: [{name: a, url: "http://a", headers: [{name: X, value: "7\r\nEvil: 1"}]}]}`, want: "value"},
	"header with a colon":     {base: simotel, set: `{targets: [{name: a, url: "http://a", headers: [{name: "X:", value: "7"}]}]}`, want: "name"},
	"header of ours":          {base: simotel, set: `{targets: [{name: a, url: "http://a", headers: [{name: Webhook-Id, value: "7"}]}]}`, want: "set by the receiver itself"},
	"header twice with auth":  {base: simotel, set: `{targets: [{name: a, url: "http://a", headers: [{name: authorization, value: x}], auth: {bearer: {secretKeyRef: {name: a, key: b}}}}]}`, want: "say the same twice"},
	"auth basic":              {base: simotel, set: `{targets: [{name: a, url: "http://a", auth: {basic: {secretRef: {name: crm}}}}]}`},
	"auth empty":              {base: simotel, set: `{targets: [{name: a, url: "http://a", auth: {}}]}`, want: "exactly one of basic and bearer"},
	"auth both":               {base: simotel, set: `{targets: [{name: a, url: "http://a", auth: {basic: {secretRef: {name: crm}}, bearer: {secretKeyRef: {name: a, key: b}}}}]}`, want: "exactly one of basic and bearer"},
	"signing and tls":         {base: simotel, set: `{targets: [{name: a, url: "https://a", signing: {secretKeyRef: {name: a, key: b}}, tls: {ca: {configMapKeyRef: {name: ca, key: ca.crt}}, clientSecretRef: {name: client}}}]}`},
	"ca from two":             {base: simotel, set: `{targets: [{name: a, url: "https://a", tls: {ca: {configMapKeyRef: {name: ca, key: ca.crt}, secretKeyRef: {name: ca, key: ca.crt}}}}]}`, want: "exactly one of configMapKeyRef and secretKeyRef"},
	"tls empty":               {base: simotel, set: `{targets: [{name: a, url: "https://a", tls: {}}]}`, want: "tls"},
	"timeout":                 {base: simotel, set: `{targets: [{name: a, url: "http://a", timeout: 1m30s}]}`},
	"timeout 0":               {base: simotel, set: `{targets: [{name: a, url: "http://a", timeout: 0s}]}`, want: "must be more than 0"},
	"timeout too long":        {base: simotel, set: `{targets: [{name: a, url: "http://a", timeout: 6m}]}`, want: "at most 5m"},
	"timeout negative":        {base: simotel, set: `{targets: [{name: a, url: "http://a", timeout: "-1s"}]}`, want: "timeout"},
	"retry":                   {base: simotel, set: `{targets: [{name: a, url: "http://a", retry: {maxAge: 72h, initialDelay: 500ms, maxDelay: 1m, maxAttempts: 50}}]}`},
	"maxAge over retention":   {base: simotel, set: `{targets: [{name: a, url: "http://a", retry: {maxAge: 73h}}]}`, want: "must be within journal.embedded.retention"},
	"retention under maxAge":  {base: simotel, set: `{journal: {embedded: {retention: 1h}}}`, want: "must be within journal.embedded.retention"},
	"retention and maxAge":    {base: simotel, set: `{journal: {embedded: {retention: 1h}}, targets: [{name: a, url: "http://a", retry: {maxAge: 1h}}]}`},
	"maxAge over nats":        {base: simotel, set: `{journal: {nats: {url: "nats://n", retention: 1h}}}`, want: "must be within journal.nats.retention"},
	"delays crossed":          {base: simotel, set: `{targets: [{name: a, url: "http://a", retry: {initialDelay: 6m}}]}`, want: "initialDelay (1s unless set) must be at most maxDelay"},
	"maxAttempts 0":           {base: simotel, set: `{targets: [{name: a, url: "http://a", retry: {maxAttempts: 0}}]}`, want: "maxAttempts"},
	"order unknown":           {base: simotel, set: `{targets: [{name: a, url: "http://a", order: Strict}]}`, want: "Unsupported value"},
	"concurrency 0":           {base: simotel, set: `{targets: [{name: a, url: "http://a", concurrency: 0}]}`, want: "concurrency"},
	"concurrency 257":         {base: simotel, set: `{targets: [{name: a, url: "http://a", concurrency: 257}]}`, want: "concurrency"},
	"rate limit":              {base: simotel, set: `{targets: [{name: a, url: "http://a", rateLimit: {perSecond: 50, burst: 100}}]}`},
	"rate limit without rate": {base: simotel, set: `{targets: [{name: a, url: "http://a", rateLimit: {burst: 100}}]}`, want: "perSecond"},

	"journal empty":                {base: simotel, set: `{journal: {}}`},
	"journal both":                 {base: simotel, set: `{journal: {embedded: {}, nats: {url: "nats://n"}}}`, want: "at most one of embedded and nats"},
	"journal on emptyDir":          {base: simotel, set: `{journal: {embedded: {storage: {emptyDir: {}}}}}`},
	"journal on both":              {base: simotel, set: `{journal: {embedded: {storage: {emptyDir: {}, claim: {}}}}}`, want: "at most one of claim and emptyDir"},
	"journal from claim away":      {base: simotel, set: `{journal: {embedded: {storage: {claim: {}}}}}`, then: `{journal: {embedded: {storage: {claim: null, emptyDir: {}}}}}`, want: "storage cannot change between claim and emptyDir"},
	"journal of 0 bytes":           {base: simotel, set: `{journal: {embedded: {maxBytes: "0"}}}`, want: "must be a quantity greater than 0"},
	"journal over its claim":       {base: simotel, set: `{journal: {embedded: {maxBytes: 2Gi}}}`, want: "must be less than the claim's size"},
	"journal in its claim":         {base: simotel, set: `{journal: {embedded: {maxBytes: 9Gi, storage: {claim: {size: 10Gi}}}}}`},
	"claim in whole numbers":       {base: simotel, set: `{journal: {embedded: {storage: {claim: {size: 5000000000}}}}}`},
	"claim grows":                  {base: simotel, set: `{journal: {embedded: {storage: {claim: {size: 2Gi}}}}}`, then: `{journal: {embedded: {storage: {claim: {size: 3Gi}}}}}`},
	"claim shrinks":                {base: simotel, set: `{journal: {embedded: {storage: {claim: {size: 3Gi}}}}}`, then: `{journal: {embedded: {storage: {claim: {size: 2Gi}}}}}`},
	"class changed":                {base: simotel, set: `{journal: {embedded: {storage: {claim: {storageClassName: fast}}}}}`, then: `{journal: {embedded: {storage: {claim: {storageClassName: slow}}}}}`, want: "storageClassName cannot be changed"},
	"class removed":                {base: simotel, set: `{journal: {embedded: {storage: {claim: {storageClassName: fast}}}}}`, then: `{journal: {embedded: {storage: {claim: {storageClassName: null}}}}}`, want: "storageClassName cannot be changed"},
	"class kept":                   {base: simotel, set: `{journal: {embedded: {storage: {claim: {storageClassName: fast}}}}}`, then: `{enabled: false}`},
	"nats":                         {base: simotel, set: `{journal: {nats: {url: "nats://a:4222,nats://b:4222", credentialsSecretRef: {name: nats}}}}`},
	"embedded to nats":             {base: simotel, set: `{}`, then: `{journal: {nats: {url: "nats://a"}}}`},
	"nats to embedded":             {base: simotel, set: `{journal: {nats: {url: "nats://a"}}}`, then: `{journal: {nats: null, embedded: {}}}`},
	"embedded, written, to nats":   {base: simotel, set: `{journal: {embedded: {}}}`, then: `{journal: {nats: {url: "nats://a"}}}`, want: "embedded: null"},
	"claim by default to emptyDir": {base: simotel, then: `{journal: {embedded: {storage: {emptyDir: {}}}}}`, want: "storage cannot change between claim and emptyDir"},
	"emptyDir to the default":      {base: simotel, set: `{journal: {embedded: {storage: {emptyDir: {}}}}}`, then: `{journal: {embedded: {storage: null}}}`, want: "storage cannot change between claim and emptyDir"},
	"emptyDir to nats":             {base: simotel, set: `{journal: {embedded: {storage: {emptyDir: {}}}}}`, then: `{journal: {embedded: null, nats: {url: "nats://a"}}}`},
	"nats moves":                   {base: simotel, set: `{journal: {nats: {url: "nats://a"}}}`, then: `{journal: {nats: {url: "nats://b"}}}`},
	"nats with user info":          {base: simotel, set: `{journal: {nats: {url: "nats://u:p@a:4222"}}}`, want: "url"},
	"nats with two replicas":       {base: simotel, set: `{journal: {nats: {url: "nats://a", replicas: 2}}}`, want: "replicas"},
	"deletion policy unknown":      {base: simotel, set: `{journal: {deletionPolicy: Keep}}`, want: "Unsupported value"},
	"two replicas embedded":        {base: simotel, set: `{receiver: {replicas: 2}}`, want: "more than one replica needs journal.nats"},
	"two replicas on nats":         {base: simotel, set: `{receiver: {replicas: 2}, journal: {embedded: null, nats: {url: "nats://a"}}}`},
	"no replicas":                  {base: simotel, set: `{receiver: {replicas: 0}}`, want: "replicas"},
	"receiver complete":            {base: simotel, set: `{receiver: {resources: {limits: {memory: 128Mi}, requests: {cpu: 50m, memory: 32Mi}}, tls: {secretRef: {name: t}}, pod: {labels: {a: b}, annotations: {a/b: "c d"}, nodeSelector: {kubernetes.io/os: linux}, tolerations: [{operator: Exists, tolerationSeconds: 5}], priorityClassName: high, imagePullSecrets: [{name: p}]}}}`},
	"a label of ours":              {base: simotel, set: `{receiver: {pod: {labels: {app.kubernetes.io/name: x}}}}`, want: "pbxhook's own"},
	"a label that is none":         {base: simotel, set: `{receiver: {pod: {labels: {a: "b c"}}}}`, want: "valid labels"},
	"an annotation of ours":        {base: simotel, set: `{receiver: {pod: {annotations: {pbxhook.io/config: x}}}}`, want: "not under pbxhook.io/"},
	"a negative limit":             {base: simotel, set: `{receiver: {resources: {limits: {memory: "-1"}}}}`, want: "must be a quantity"},

	"exposed by service":   {base: simotel, set: `{expose: {service: {type: NodePort}}}`},
	"exposed by gateway":   {base: simotel, set: `{expose: {gateway: {parentRefs: [{name: public, namespace: gateways}], hostnames: [pbx.example.com]}}}`},
	"exposed by ingress":   {base: simotel, set: `{expose: {ingress: {className: nginx, host: pbx.example.com, tlsSecretName: pbx-tls}}}`},
	"exposed twice":        {base: simotel, set: `{expose: {service: {}, ingress: {host: a}}}`, want: "at most one of service, gateway and ingress"},
	"exposed by ClusterIP": {base: simotel, set: `{expose: {service: {type: ClusterIP}}}`, want: "Unsupported value"},
	"class of a NodePort":  {base: simotel, set: `{expose: {service: {type: NodePort, loadBalancerClass: a/b}}}`, want: "loadBalancerClass goes with type LoadBalancer"},
	"gateway to nowhere":   {base: simotel, set: `{expose: {gateway: {parentRefs: []}}}`, want: "parentRefs"},
	"ingress without host": {base: simotel, set: `{expose: {ingress: {}}}`, want: "host"},
	"unknown field":        {base: simotel, set: `{tragets: []}`, want: "unknown field"},

	// Values that a schema could let through and Go could not decode.
	"hostile duration in days":    {base: simotel, set: `{targets: [{name: a, url: "http://a", timeout: 1d}]}`, want: "timeout"},
	"hostile duration, huge":      {base: simotel, set: `{targets: [{name: a, url: "http://a", retry: {maxAge: 999999h999999h999999h}}]}`, want: "maxAge"},
	"hostile duration, fraction":  {base: simotel, set: `{targets: [{name: a, url: "http://a", timeout: 1.5s}]}`, want: "timeout"},
	"hostile duration, number":    {base: simotel, set: `{targets: [{name: a, url: "http://a", timeout: 10}]}`, want: "timeout"},
	"hostile duration, largest":   {base: simotel, set: `{journal: {embedded: {retention: 99999h99999h99999h99999h}}}`},
	"hostile quantity, maxBytes":  {base: simotel, set: `{journal: {embedded: {maxBytes: "1e1.5"}}}`, want: "quantity"},
	"hostile quantity, size":      {base: simotel, set: `{journal: {embedded: {storage: {claim: {size: "1e1.5"}}}}}`, want: "quantity"},
	"hostile quantity, limits":    {base: simotel, set: `{receiver: {resources: {limits: {memory: "1e1.5"}}}}`, want: "quantity"},
	"hostile quantity, requests":  {base: simotel, set: `{receiver: {resources: {requests: {memory: "1e1.5"}}}}`, want: "quantity"},
	"hostile quantity, exponent":  {base: simotel, set: `{journal: {embedded: {maxBytes: "1e999999999"}}}`, want: "quantity"},
	"hostile int32, seconds":      {base: simotel, set: `{targets: [{name: a, url: "http://a", rateLimit: {perSecond: 99999999999}}]}`, want: "perSecond"},
	"hostile int32, skew":         {base: simotel, set: `{receiver: {pod: {topologySpreadConstraints: [{maxSkew: 99999999999, topologyKey: a, whenUnsatisfiable: DoNotSchedule}]}}}`, want: "maxSkew"},
	"hostile int32, weight":       {base: simotel, set: `{receiver: {pod: {affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 99999999999, preference: {}}]}}}}}`, want: "weight"},
	"hostile int64, toleration":   {base: simotel, set: `{receiver: {pod: {tolerations: [{operator: Exists, tolerationSeconds: 1e300}]}}}`, want: "tolerationSeconds"},
	"hostile int64, one too many": {base: simotel, set: `{receiver: {pod: {tolerations: [{operator: Exists, tolerationSeconds: 9223372036854775808}]}}}`, want: "tolerationSeconds"},
	"hostile int32, pod weight":   {base: simotel, set: `{receiver: {pod: {affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 99999999999, podAffinityTerm: {topologyKey: a}}]}}}}}`, want: "weight"},
	"hostile bool":                {base: simotel, set: `{enabled: "yes"}`, want: "enabled"},
	"hostile null target":         {base: simotel, set: `{targets: [null]}`, want: "targets"},
	"hostile list of one":         {base: simotel, set: `{targets: {name: a}}`, want: "targets"},
}

func manyTargets(n int) string {
	targets := make([]string, n)
	for i := range targets {
		targets[i] = fmt.Sprintf(`{name: t%d, url: "http://t%d", headers: [{name: X, value: "1"}], retry: {maxAge: 1h}}`, i, i)
	}
	return "{targets: [" + strings.Join(targets, ", ") + "]}"
}

func TestRules(t *testing.T) {
	ctx := context.Background()
	judge, err := validation.New()
	require.NoError(t, err)
	server, err := client.New(testenv.Config, client.Options{})
	require.NoError(t, err)
	server = client.WithFieldValidation(server, "Strict") // as kubectl does

	for name, tc := range ruleCases {
		t.Run(name, func(t *testing.T) {
			object := webhook(t, tc.meta, tc.base, tc.set)
			_, errs := judge.Create(ctx, object)
			stored := object.DeepCopy()
			err := server.Create(ctx, stored)
			if err == nil {
				t.Cleanup(func() { require.NoError(t, server.Delete(ctx, stored)) })
			}
			if tc.then != "" {
				require.Empty(t, errs)
				require.NoError(t, err)
				changed := stored.DeepCopy()
				changed.Object["spec"] = patched(t, stored.Object["spec"].(map[string]any), tc.then)
				_, errs = judge.Update(ctx, changed, stored)
				err = server.Update(ctx, changed)
			}
			if tc.want == "" {
				require.Empty(t, errs)
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, errs.ToAggregate(), tc.want, "pbxhook check")
			require.Error(t, err, "the API server accepted it")
			require.True(t, apierrors.IsInvalid(err) || apierrors.IsBadRequest(err), "%v", err)
			require.ErrorContains(t, err, tc.want, "the API server")
		})
	}
}

// TestInformerLives writes every accepted object at once and lists all through a typed informer:
// a single one that Go cannot decode would leave it without any.
func TestInformerLives(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	server, err := client.New(testenv.Config, client.Options{})
	require.NoError(t, err)
	var created int
	for name, tc := range ruleCases {
		object := webhook(t, "", tc.base, tc.set)
		object.SetName(fmt.Sprintf("alive%d", created))
		if server.Create(ctx, object) != nil {
			continue // refused: it cannot hurt
		}
		created++
		t.Cleanup(func() { require.NoError(t, server.Delete(context.Background(), object), name) })
	}
	require.Greater(t, created, 40)

	scheme := runtime.NewScheme()
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	informers, err := ctrlcache.New(testenv.Config, ctrlcache.Options{Scheme: scheme, DefaultWatchErrorHandler: func(_ context.Context, _ *cache.Reflector, err error) {
		t.Errorf("the informer stopped: %v", err)
	}})
	require.NoError(t, err)
	go func() { _ = informers.Start(ctx) }()
	_, err = informers.GetInformer(ctx, &v1alpha1.PBXWebhook{})
	require.NoError(t, err)
	require.True(t, informers.WaitForCacheSync(ctx), "the informer never had a list")
	list := &v1alpha1.PBXWebhookList{}
	require.NoError(t, informers.List(ctx, list))
	require.Len(t, list.Items, created)
}

// TestDefaultsAreTheServers: `pbxhook run` must see what the API server would store.
func TestDefaultsAreTheServers(t *testing.T) {
	ctx := context.Background()
	judge, err := validation.New()
	require.NoError(t, err)
	server, err := client.New(testenv.Config, client.Options{})
	require.NoError(t, err)
	for name, base := range map[string]string{"simotel": simotel, "voipstudio": voipstudio, "acefone": acefone} {
		object := webhook(t, name, base, "")
		ours, errs := judge.Create(ctx, object)
		require.Empty(t, errs)
		require.NoError(t, server.Create(ctx, object))
		theirs := &v1alpha1.PBXWebhook{}
		require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, theirs))
		require.NoError(t, server.Delete(ctx, object))
		require.Equal(t, theirs.Spec, ours.Spec)
		require.EqualValues(t, -1, theirs.Status.ObservedGeneration)
	}
}

// TestNATSIsOneEdit: a webhook without a journal of its own moves to NATS by adding journal.nats alone, by kubectl
// edit, by apply on the client's side and on the server's.
func TestNATSIsOneEdit(t *testing.T) {
	ctx := context.Background()
	server, err := client.New(testenv.Config, client.Options{})
	require.NoError(t, err)
	const nats = `{journal: {nats: {url: "nats://a"}}}`
	for name, edit := range map[string]func(*unstructured.Unstructured) error{
		"update": func(stored *unstructured.Unstructured) error {
			stored.Object["spec"] = patched(t, stored.Object["spec"].(map[string]any), nats)
			return server.Update(ctx, stored)
		},
		"merge patch": func(stored *unstructured.Unstructured) error { // kubectl apply on the client's side, kubectl edit
			return server.Patch(ctx, stored, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"journal":{"nats":{"url":"nats://a"}}}}`)))
		},
		"server-side apply": func(stored *unstructured.Unstructured) error {
			return server.Apply(ctx, client.ApplyConfigurationFromUnstructured(webhook(t, stored.GetName(), simotel, nats)), client.FieldOwner("kubectl"), client.ForceOwnership)
		},
	} {
		t.Run(name, func(t *testing.T) {
			object := webhook(t, "one-edit", simotel, "")
			require.NoError(t, server.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("kubectl")))
			t.Cleanup(func() { require.NoError(t, server.Delete(ctx, object)) })
			stored := object.DeepCopy()
			require.NoError(t, server.Get(ctx, client.ObjectKeyFromObject(object), stored))
			_, found, _ := unstructured.NestedMap(stored.Object, "spec", "journal")
			require.False(t, found, "the schema gives no journal")
			require.NoError(t, edit(stored))
		})
	}
}

func webhook(t *testing.T, name, base, set string) *unstructured.Unstructured {
	t.Helper()
	spec := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte(base), &spec))
	if set != "" {
		spec = patched(t, spec, set)
	}
	if name == "" {
		name = "callcenter"
	}
	object := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.Kind))
	object.SetName(name)
	object.SetNamespace("default")
	// through JSON, so that numbers are what a client would send
	data, err := json.Marshal(object.Object)
	require.NoError(t, err)
	require.NoError(t, object.UnmarshalJSON(data))
	return object
}

func patched(t *testing.T, spec map[string]any, set string) map[string]any {
	t.Helper()
	patch := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte(set), &patch))
	return merge(runtime.DeepCopyJSON(normal(t, spec)), normal(t, patch))
}

// normal gives numbers the types that DeepCopyJSON knows.
func normal(t *testing.T, value map[string]any) map[string]any {
	t.Helper()
	data, err := json.Marshal(value)
	require.NoError(t, err)
	object := &unstructured.Unstructured{}
	require.NoError(t, object.UnmarshalJSON([]byte(`{"apiVersion":"v1","kind":"x","spec":`+string(data)+`}`)))
	return object.Object["spec"].(map[string]any)
}

// merge is a JSON merge patch (RFC 7396).
func merge(into, patch map[string]any) map[string]any {
	for key, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(into, key)
		case map[string]any:
			child, _ := into[key].(map[string]any)
			if child == nil {
				child = map[string]any{}
			}
			into[key] = merge(child, value)
		default:
			into[key] = value
		}
	}
	return into
}
