'use strict';

// The services of probemesh as gRPC clients, made from the .proto files when the program starts: nothing is generated, nothing is copied.

const fs = require('fs');
const path = require('path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

// load gives the package probemesh.v1: services as client classes. `protoDir` is the directory that has probemesh/v1.
function load(protoDir) {
  const dir = path.join(protoDir, 'probemesh', 'v1');
  const files = fs.readdirSync(dir).filter((f) => f.endsWith('.proto')).map((f) => path.join('probemesh', 'v1', f));
  const definition = protoLoader.loadSync(files, {
    includeDirs: [protoDir],
    keepCase: true, // field names as in the protos and in YAML: display_name, not displayName
    enums: String,
    longs: String, // int64 does not fit a JavaScript number
    defaults: true,
    oneofs: true,
  });
  return grpc.loadPackageDefinition(definition).probemesh.v1;
}

// call makes a unary call with a deadline, as a promise.
function call(client, method, request, seconds = 10) {
  return new Promise((resolve, reject) => {
    client[method](request, { deadline: Date.now() + seconds * 1000 }, (err, answer) => (err ? reject(err) : resolve(answer)));
  });
}

module.exports = { call, credentials: grpc.credentials, load, status: grpc.status };
