// A native gRPC client in Node. Its bootstrap is in GRPC_XDS_BOOTSTRAP_CONFIG, its
// target the first argument. Each line of its input is a request as JSON,
// {"calls": 10, "headers": {"x-user": "ann"}}; the line of output that answers it
// says which servers answered, and with which codes calls ended:
// {"hosts": {"a": 9}, "codes": {"0": 9, "14": 1}, "error": "the last one's"}.
import * as readline from 'node:readline';
import * as grpc from '@grpc/grpc-js';
import * as xds from '@grpc/grpc-js-xds';

xds.register();
const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure());
const identity = (bytes) => bytes;

function call(headers) {
  return new Promise((resolve) => {
    const metadata = new grpc.Metadata();
    for (const [name, value] of Object.entries(headers ?? {})) metadata.set(name, value);
    let host = '';
    const options = {deadline: Date.now() + 15000};
    const stream = client.makeUnaryRequest('/grpc.health.v1.Health/Check', identity, identity, Buffer.alloc(0), metadata, options,
      (error) => resolve({host, code: error ? error.code : 0, error: error?.details}));
    stream.on('metadata', (m) => { host = String(m.get('x-instance')[0] ?? ''); });
  });
}

for await (const line of readline.createInterface({input: process.stdin})) {
  const request = JSON.parse(line);
  const answer = {hosts: {}, codes: {}};
  for (let i = 0; i < request.calls; i++) {
    const result = await call(request.headers);
    answer.codes[result.code] = (answer.codes[result.code] ?? 0) + 1;
    if (result.code === 0) answer.hosts[result.host] = (answer.hosts[result.host] ?? 0) + 1;
    if (result.error) answer.error = result.error;
  }
  console.log(JSON.stringify(answer));
}
client.close();
process.exit(0);
