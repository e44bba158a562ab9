'use strict';

// The details of an error: every error of probemesh carries a google.rpc.ErrorInfo with a documented reason, and bad arguments a
// google.rpc.BadRequest that lists every fault. They travel in the trailer grpc-status-details-bin, as a google.rpc.Status.

const protobuf = require('protobufjs');

const { root } = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message BadRequest {
    message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1;
  }
`, { keepCase: true });

// explain turns an error of a call into {code, message, reason, metadata, violations}. `reason` is empty when the error is not one of probemesh.
function explain(err) {
  const out = { code: err.code, message: err.details || err.message, reason: '', metadata: {}, violations: [] };
  const [trailer] = err.metadata ? err.metadata.get('grpc-status-details-bin') : [];
  if (!trailer) {
    return out;
  }
  for (const { type_url: url, value } of root.lookupType('google.rpc.Status').decode(trailer).details) {
    const name = url.split('/').pop();
    if (name === 'google.rpc.ErrorInfo') {
      const info = root.lookupType(name).decode(value);
      if (info.domain === 'probemesh') {
        Object.assign(out, { reason: info.reason, metadata: info.metadata });
      }
    } else if (name === 'google.rpc.BadRequest') {
      out.violations = root.lookupType(name).decode(value).field_violations.map((v) => ({ field: v.field, description: v.description }));
    }
  }
  return out;
}

module.exports = { explain };
