'use strict';

// Applies one check and watches its status until it is UP. Prints one JSON object a line:
//
//   {"event": "refused", ...}   what a check with two faults is refused with; it is only validated, nothing changes
//   {"event": "applied", ...}   what Apply did
//   {"event": "synced"}         the snapshot is complete; what follows are changes
//   {"event": "status", ...}    each status of the check
//   {"event": "removed", ...}   the check was deleted by somebody else
//
// Ends with 0 when the check is UP, 1 when the time is over or the check is gone, 2 when it is used wrongly, 3 when the server refused.
//
// usage: node apply_and_watch.js HOST:PORT PROTO_DIR NAME URI [SECONDS]

const { call, credentials, load, status } = require('./client');
const { explain } = require('./errors');

const print = (event, more) => console.log(JSON.stringify({ event, ...more }));

// watch follows the status of one check until `done` says so or the deadline passes. A stream that breaks is resumed by watching again: the snapshot
// replaces what was known.
function watch(client, check, deadline, done) {
  return new Promise((resolve, reject) => {
    const begin = () => {
      let synced = false;
      let last;
      const stream = client.WatchStatuses({ filter: `name = "${check}"` }, { deadline });
      stream.on('data', (message) => {
        if (message.synced) {
          print('synced', {});
          synced = true;
        } else if (message.removed) {
          print('removed', { check: message.status.check });
          resolve(false);
          stream.cancel();
          return;
        } else {
          const s = message.status;
          print('status', { check: s.check, verdict: s.verdict, reason: s.reason, summary: s.summary });
          last = s;
        }
        if (synced && last && done(last)) {
          resolve(true);
          stream.cancel();
        }
      });
      stream.on('error', (err) => {
        switch (err.code) {
          case status.CANCELLED: // by ourselves
            return;
          case status.DEADLINE_EXCEEDED:
            resolve(false);
            return;
          case status.UNAVAILABLE: // the server stops or is not there yet
          case status.DATA_LOSS: // too slow: changes were missed
            setTimeout(begin, 500);
            return;
          default:
            reject(err);
        }
      });
    };
    begin();
  });
}

async function main([address, protoDir, name, uri, seconds = '60']) {
  if (!uri) {
    console.error('usage: node apply_and_watch.js HOST:PORT PROTO_DIR NAME URI [SECONDS]');
    return 2;
  }
  const api = load(protoDir);
  const checks = new api.CheckService(address, credentials.createInsecure());
  const statuses = new api.StatusService(address, credentials.createInsecure());
  const check = { name, uri, interval: { seconds: 1 }, timeout: { seconds: 1 }, labels: { client: 'node' } };

  try {
    await call(checks, 'Apply', { checks: [{ ...check, interval: { nanos: 5e8 }, uri: 'gopher://nowhere' }], validate_only: true });
  } catch (err) {
    print('refused', explain(err));
  }
  const { changes } = await call(checks, 'Apply', { checks: [check], request_id: `node-${process.pid}-${Date.now()}` });
  print('applied', { changes: changes.map((c) => ({ name: c.name, action: c.action })) });

  const up = await watch(statuses, name, Date.now() + Number(seconds) * 1000, (s) => s.verdict === 'UP');
  checks.close();
  statuses.close();
  return up ? 0 : 1;
}

main(process.argv.slice(2)).then(
  (code) => { process.exitCode = code; },
  (err) => {
    console.error(JSON.stringify(explain(err)));
    process.exitCode = 3;
  },
);
