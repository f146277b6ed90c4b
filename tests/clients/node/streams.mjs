// node streams.mjs FILE: what the client puts together from streams, one JSON array of events a line; prints what is wrong.
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import OpenAI from "openai";

const streams = readFileSync(process.argv[2], "utf8").trim().split("\n").map((line) => JSON.parse(line));

async function accumulated(events) {
  const frames = events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  const body = `${frames.join("")}data: [DONE]\n\n`;
  const fetch = async () => new Response(body, { headers: { "content-type": "text/event-stream" } });
  const client = new OpenAI({ baseURL: "http://test", apiKey: "none", maxRetries: 0, fetch });
  const stream = client.responses.stream({ model: "test", input: "hi" });
  const numbers = [];
  for await (const event of stream) numbers.push(event.sequence_number);
  return { numbers, response: plain(await stream.finalResponse()) };
}

// Without what the client adds when it parses.
function plain(response) {
  const { output_parsed, output_text, ...rest } = response;
  const output = rest.output.map(({ parsed_arguments, ...item }) =>
    item.type === "message" ? { ...item, content: item.content.map(({ parsed, ...part }) => part) } : item,
  );
  return { ...rest, output };
}

const wrong = [];
for (const [number, events] of streams.entries()) {
  try {
    const { numbers, response } = await accumulated(events);
    if (!isDeepStrictEqual(response, events.at(-1).response)) wrong.push([number, "another response"]);
    if (numbers.length !== events.length) wrong.push([number, "events are missing"]);
  } catch (error) {
    wrong.push([number, String(error)]);
  }
}
console.log(JSON.stringify({ streams: streams.length, wrong }));
