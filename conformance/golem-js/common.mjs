// What the programs of this directory share.
import { createRequire } from "node:module";

// The package's ES module cannot check the hash of received data (`jsSha3.sha3_256 is not a
// function`); its CommonJS build can.
const { GolemNetwork } = process.env.CONFORMANCE_COMMONJS
  ? createRequire(import.meta.url)("@golem-sdk/golem-js")
  : await import("@golem-sdk/golem-js");

export function check(what, good) {
  if (!good) throw new Error(what);
  console.log(`ok   ${what}`);
}

/** Has `run.py` do something bad, and waits until it is done. */
export async function misfortune(what) {
  console.log(`>> ${what}`);
  process.stdin.resume();
  await new Promise((resolve) => process.stdin.once("data", resolve));
  process.stdin.pause();
}

export function order(network, more = {}) {
  return {
    demand: {
      workload: {
        imageTag: process.env.CONFORMANCE_IMAGE_TAG,
        capabilities: network ? ["vpn"] : [],
        minMemGib: 0.25,
        minStorageGib: 0.5,
        ...more,
      },
    },
    market: {
      rentHours: 0.5,
      pricing: {
        model: "linear",
        maxStartPrice: 1,
        maxCpuPerHourPrice: 1,
        maxEnvPerHourPrice: 1,
      },
    },
    network,
  };
}

export async function main(program) {
  const glm = new GolemNetwork({});
  let code = 0;
  try {
    await glm.connect();
    await program(glm);
  } catch (error) {
    console.error(error);
    console.log(`FAIL ${error.message}`);
    code = 1;
  }
  await glm.disconnect();
  process.exit(code);
}
