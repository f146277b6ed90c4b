// node structured.mjs URL AGENT: the same answer of a schema, as each client reads it; prints one JSON object.
import { createOpenAI } from "@ai-sdk/openai";
import { ChatOpenAI } from "@langchain/openai";
import { Agent, OpenAIResponsesModel, Runner, setTracingDisabled } from "@openai/agents";
import { generateObject, generateText, Output, streamText } from "ai";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [url, model] = process.argv.slice(2);
const City = z.object({ city: z.string(), degrees: z.number() });
const question = "How warm is it in Oslo?";
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const ai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" }).responses(model);
const text = { format: zodTextFormat(City, "city") };
const langchain = new ChatOpenAI({
  model,
  apiKey: "none",
  useResponsesApi: true,
  maxRetries: 0,
  configuration: { baseURL: `${url}/v1` },
});
setTracingDisabled(true);
const agent = new Agent({ name: "a", model: new OpenAIResponsesModel(client, model), outputType: City });

async function partial() {
  const { partialOutputStream, output } = streamText({ model: ai, prompt: question, output: Output.object({ schema: City }) });
  for await (const _ of partialOutputStream);
  return output;
}

const ways = {
  parse: async () => (await client.responses.parse({ model, input: question, text })).output_parsed,
  stream: async () => (await client.responses.stream({ model, input: question, text }).finalResponse()).output_parsed,
  langchain: () => langchain.withStructuredOutput(City, { name: "city", method: "jsonSchema" }).invoke(question),
  agents: async () => (await new Runner().run(agent, question)).finalOutput,
  generateObject: async () => (await generateObject({ model: ai, prompt: question, schema: City, maxRetries: 0 })).object,
  generateText: async () =>
    (await generateText({ model: ai, prompt: question, output: Output.object({ schema: City }), maxRetries: 0 })).output,
  streamText: partial,
};
const found = {};
for (const [name, ask] of Object.entries(ways)) {
  try {
    found[name] = await ask();
  } catch (error) {
    found[name] = String(error);
  }
}
console.log(JSON.stringify(found));
