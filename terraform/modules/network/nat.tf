resource "aws_eip" "nat" {
  count = var.nat_gateway_per_zone ? 3 : 1

  domain = "vpc"

  tags = { Name = "${var.name}-nat-${local.zones[count.index]}" }

  # AWS releases the address only while the internet gateway is attached.
  depends_on = [aws_internet_gateway.gateway]
}

resource "aws_nat_gateway" "egress" {
  count = var.nat_gateway_per_zone ? 3 : 1

  allocation_id = aws_eip.nat[count.index].id
  subnet_id     = aws_subnet.public[count.index].id

  tags = { Name = "${var.name}-${local.zones[count.index]}" }

  depends_on = [aws_route.public_internet]
}

resource "aws_route" "private_nat" {
  count = 3

  route_table_id         = aws_route_table.private[count.index].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.egress[var.nat_gateway_per_zone ? count.index : 0].id
}
