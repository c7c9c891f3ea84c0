"""The formats of EXPLAIN that programs read, against texts that PostgreSQL 16 printed."""

from __future__ import annotations

import json

import pytest

from dsql_server.processor.explain_formats import format_of

YAML = "\n".join(
    (
        "- Plan: ",
        '    Node Type: "Aggregate"',
        "    Parallel Aware: false",
        "    Startup Cost: 0.00",
        "    Total Cost: 25.11",
        "    Plan Rows: 7",
        "    Output: ",
        '      - "id"',
        '      - "count(*)"',
        "    Grouping Sets: ",
        "      - Hash Keys: ",
        '          - ["exf.id"]',
        "      - Group Keys: ",
        "          - []",
        "    Plans: ",
        '      - Node Type: "Seq Scan"',
        r'        Alias: "exf: \"1\""',
        "        Actual Total Time: 0.020",
        '        Filter: "(exf.a < 5)"',
        '      - Node Type: "Result"',
        "        Actual Rows: 0",
        "  Settings: ",
        '    jit: "off"',
        "  Planning Time: 0.092",
        "  Triggers: ",
        "  Execution Time: 0.041",
    )
)
XML = """<explain xmlns="http://www.postgresql.org/2009/explain">
  <Query>
    <Plan>
      <Node-Type>Sort</Node-Type>
      <Parallel-Aware>false</Parallel-Aware>
      <Startup-Cost>72.40</Startup-Cost>
      <Plan-Rows>400</Plan-Rows>
      <Index-Name>007</Index-Name>
      <Output>
        <Item>x.a</Item>
      </Output>
      <Grouping-Sets>
        <Grouping-Set>
          <Hash-Keys>
            <Hash-Key>
              <Item>x.id</Item>
            </Hash-Key>
          </Hash-Keys>
        </Grouping-Set>
      </Grouping-Sets>
      <Plans>
        <Plan>
          <Node-Type>Seq Scan</Node-Type>
          <Filter>(x.a &lt; '&lt;&amp;&gt;'::text)</Filter>
        </Plan>
      </Plans>
    </Plan>
    <Settings>
      <jit>off</jit>
    </Settings>
    <Planning-Time>0.089</Planning-Time>
    <Triggers>
    </Triggers>
  </Query>
</explain>"""


@pytest.mark.parametrize("text", [YAML, XML], ids=["yaml", "xml"])
def test_what_is_read_is_written_as_it_was(text: str) -> None:
    format_ = format_of(text)
    assert format_ is not None
    assert format_.write(format_.read(text)) == text


def test_yaml_is_read_as_json_is() -> None:
    format_ = format_of(YAML)
    assert format_ is not None
    (query,) = format_.read(YAML)
    assert query["Triggers"] == []
    assert query["Settings"] == {"jit": "off"}
    top = query["Plan"]
    assert (top["Parallel Aware"], top["Total Cost"], top["Plan Rows"]) == (False, 25.11, 7)
    assert top["Grouping Sets"] == [{"Hash Keys": [["exf.id"]]}, {"Group Keys": [[]]}]
    assert [node["Node Type"] for node in top["Plans"]] == ["Seq Scan", "Result"]


def test_numbers_are_numbers_in_xml_where_they_are_computed_with() -> None:
    format_ = format_of(XML)
    assert format_ is not None
    plan = format_.read(XML)[0]["Plan"]
    assert (plan["Startup Cost"], plan["Plan Rows"], plan["Index Name"]) == (72.4, 400, "007")
    assert plan["Plans"][0]["Filter"] == "(x.a < '<&>'::text)"


def test_json_and_text() -> None:
    document = [{"Plan": {"Node Type": "Result", "Plan Rows": 1}}]
    format_ = format_of(json.dumps(document))
    assert format_ is not None
    assert json.loads(format_.write(format_.read(json.dumps(document)))) == document
    assert format_of("Result  (cost=0.00..0.01 rows=1 width=4)\n  Output: 1") is None
