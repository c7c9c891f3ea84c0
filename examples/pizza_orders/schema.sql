-- One statement is one transaction in DSQL, and indexes are built in the background.

CREATE TABLE IF NOT EXISTS orders (
    order_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer text NOT NULL,
    status text NOT NULL DEFAULT 'new',
    total numeric(10, 2) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS order_items (
    item_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    order_id uuid NOT NULL,
    product text NOT NULL,
    quantity integer NOT NULL,
    price numeric(10, 2) NOT NULL
);

CREATE INDEX ASYNC IF NOT EXISTS order_items_by_order ON order_items (order_id);

CREATE INDEX ASYNC IF NOT EXISTS orders_by_time ON orders (created_at);
